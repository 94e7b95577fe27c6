"""Blocks of keys and a choice among them for every query, shared by MoBA and NSA.

Places are counted among the kept keys only, so padding on either side moves no block's border.
The chosen blocks are read as a mask over dense scores, for a few queries at a time: gathering them
would read every key once per query, and products over queries that chose alike would have a shape,
and so last bits, that depend on what later tokens choose.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

QUERIES = 256  # taken at once, so that memory grows with the keys alone
NOWHERE = 2**62  # the place of a key that is not kept: in no block


def places(keep: Tensor | None, n_k: int, device: torch.device) -> Tensor:
    """Where each key stands among the kept ones, or `NOWHERE`; (B or 1, Tk) int64."""
    if keep is None:
        return torch.arange(n_k, device=device)[None]
    return (keep.cumsum(-1) - 1).masked_fill(~keep, NOWHERE)


def seen(place: Tensor, n_q: int, offset: int) -> Tensor:
    """How many kept keys each of n_q queries may see, (B or 1, Tq) int64."""
    n_k = place.shape[1]
    kept_so_far = (place < n_k).cumsum(-1)
    kept_so_far = torch.cat((torch.zeros_like(kept_so_far[:, :1]), kept_so_far), dim=-1)
    last = torch.arange(offset + 1, offset + 1 + n_q, device=place.device)
    return kept_so_far[:, last.clamp(0, n_k)]


def chosen(score: Tensor, own: Tensor, forced: Tensor, count: int) -> Tensor:
    """Which blocks each query reads: those forced and the best before its own, `count` in all.

    Args:
        score: of each block for each query, (B, ..., Tq, blocks).
        own: the block the query stands in, which is the last it may read, (B or 1, ..., Tq, 1).
        forced: blocks read whatever they score, (B or 1, ..., Tq, blocks) bool.
        count: blocks read at most.
    """
    block = torch.arange(score.shape[-1], device=score.device)
    score = score.masked_fill(forced, float("inf")).masked_fill(block > own, float("-inf"))
    best = score.topk(min(count, score.shape[-1]), dim=-1).indices
    return torch.zeros_like(score, dtype=torch.bool).scatter(-1, best, True) & (block <= own)


def of_blocks(choice: Tensor, place: Tensor, block: int) -> Tensor:
    """A choice of blocks (B, ..., Tq, blocks) as one of keys, (B, ..., Tq, Tk) bool."""
    index = (place // block).clamp(max=choice.shape[-1] - 1)
    index = index.view(len(place), *[1] * (choice.ndim - 2), -1)
    return choice.gather(-1, index.expand(*choice.shape[:-1], -1))


def chunks(n_q: int, n_k: int, offset: int) -> Iterator[tuple[slice, slice]]:
    """Some queries at a time, and the keys up to the last of which they may see any."""
    for start in range(0, n_q, QUERIES):
        stop = min(start + QUERIES, n_q)
        yield slice(start, stop), slice(0, max(0, min(n_k, stop + offset)))
