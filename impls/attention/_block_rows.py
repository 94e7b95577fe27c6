"""Attention row of blocks by row in plain torch: any device, any dtype, memory of one row.

The computation of `_blocks.py`, and its symbols; Tr queries of a row, Tc keys they read.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from impls.attention._layout import BlockLayout


def forward(
    q: Tensor, k: Tensor, v: Tensor, layout: BlockLayout, *, scale: float, keep: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Output (B, H, Tq, dv) and lse (B, H, Tq), in plain torch."""
    out = q.new_zeros(*q.shape[:3], v.shape[-1])
    lse = q.new_full(q.shape[:3], float("-inf"), dtype=_work_dtype(q))
    with torch.autocast(q.device.type, enabled=False):
        for row in _rows(q, k, layout, keep):
            scores = row.scores(q, k, scale)
            row_lse = scores.logsumexp(-1, keepdim=True)
            row.put(lse[..., None], row_lse)
            row.put(out, _weights(scores, row_lse) @ row.keys_of(v))
    return out, lse


def backward(  # noqa: PLR0917 - the parts of one formula
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    layout: BlockLayout,
    *,
    scale: float,
    keep: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `forward`, each row of blocks computed again from its lse."""
    dq = torch.zeros_like(q)
    dk, dv = (torch.zeros_like(x, dtype=_work_dtype(x)) for x in (k, v))
    with torch.autocast(q.device.type, enabled=False):
        for row in _rows(q, k, layout, keep):
            weights = _weights(row.scores(q, k, scale), row.queries_of(lse[..., None]))
            dy = row.queries_of(grad_out)
            delta = (dy * row.queries_of(out)).sum(-1, keepdim=True)
            dv[:, row.groups, row.keys] += weights.mT @ dy
            ds = scale * weights * (dy @ row.keys_of(v).mT - delta)
            row.put(dq, ds @ row.keys_of(k))
            dk[:, row.groups, row.keys] += ds.mT @ row.queries_of(q)
    return dq, dk.to(k.dtype), dv.to(v.dtype)


class _Row(NamedTuple):
    """One row of blocks: some queries, all the keys they read, and which pair is seen."""

    heads: slice
    groups: slice  # of keys and values
    queries: slice
    keys: slice | Tensor
    mask: Tensor | None  # (B or 1, 1, R * queries, keys) bool

    def queries_of(self, x: Tensor) -> Tensor:
        """This row of x (B, H, Tq, d), the heads of a group beneath each other: (B, G, R Tr, d)."""
        n_groups = self.groups.stop - self.groups.start
        rows = x[:, self.heads, self.queries]
        return rows.reshape(x.shape[0], n_groups, -1, x.shape[-1]).to(_work_dtype(x))

    def keys_of(self, x: Tensor) -> Tensor:
        """The keys or values read, (B, G, Tc, d)."""
        return x[:, self.groups, self.keys].to(_work_dtype(x))

    def scores(self, q: Tensor, k: Tensor, scale: float) -> Tensor:
        """Scores s q k^T, -inf where not seen, (B, G, R Tr, Tc)."""
        scores = scale * self.queries_of(q) @ self.keys_of(k).mT
        return scores if self.mask is None else scores.masked_fill(~self.mask, float("-inf"))

    def put(self, x: Tensor, rows: Tensor) -> None:
        """Write (B, G, R Tr, d) to this row of x (B, H, Tq, d)."""
        there = x[:, self.heads, self.queries]
        there.copy_(rows.reshape(there.shape))


def _rows(q: Tensor, k: Tensor, layout: BlockLayout, keep: Tensor | None) -> Iterator[_Row]:
    """The rows of blocks that read anything, head by head where heads differ."""
    H, G = q.shape[1], k.shape[1]
    starts = layout.rows.tolist()
    per_head = (len(starts) - 1) // layout.n_heads
    for n, (start, stop) in enumerate(pairwise(starts)):
        if start == stop:
            continue
        head, first = n // per_head, n % per_head * layout.block
        group = head * G // H
        alike = layout.n_heads == 1
        queries = slice(first, min(first + layout.block, layout.n_q))
        keys = _columns(layout, start, stop, k.device)
        mask = _mask(layout, start, stop, queries.stop - first, k.device)
        if keep is not None:
            kept = keep[:, None, None, keys]
            mask = kept if mask is None else mask & kept
        if mask is not None and alike and mask.shape[2] > 1:
            mask = mask.repeat(1, 1, H // G, 1)
        yield _Row(
            slice(0, H) if alike else slice(head, head + 1),
            slice(0, G) if alike else slice(group, group + 1),
            queries,
            keys,
            mask,
        )


def _columns(layout: BlockLayout, start: int, stop: int, device: torch.device) -> slice | Tensor:
    """Indices of the keys in some kept blocks, as a slice where they are neighbours."""
    blocks = layout.cols[start:stop].long()
    first, last = int(blocks[0]) * layout.block, min(int(blocks[-1] + 1) * layout.block, layout.n_k)
    if int(blocks[-1] - blocks[0]) == stop - start - 1:
        return slice(first, last)
    keys = (blocks[:, None] * layout.block + torch.arange(layout.block)).flatten()
    return keys[keys < layout.n_k].to(device)


def _mask(
    layout: BlockLayout, start: int, stop: int, height: int, device: torch.device
) -> Tensor | None:
    """Which pair of some blocks of a row is seen, (1, 1, height, keys); None: every one."""
    masks_of = layout.masks_of[start:stop].long()
    if not len(layout.masks) or bool((masks_of < 0).all()):
        return None
    seen = layout.masks[masks_of.clamp(min=0)] | (masks_of < 0)[:, None, None]
    width = (stop - start) * layout.block - max(
        0, int(layout.cols[stop - 1] + 1) * layout.block - layout.n_k
    )
    return seen.transpose(0, 1).flatten(1)[:height, :width].to(device)[None, None]


def _weights(scores: Tensor, lse: Tensor) -> Tensor:
    """exp(scores - lse), 0 in rows that see nothing."""
    return (scores - lse.masked_fill(lse == float("-inf"), 0.0)).exp()


def _work_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
