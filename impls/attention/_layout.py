"""Which blocks of query-key pairs a rule keeps; nothing here is ever as large as Tq x Tk.

A block is a square of pairs: left out, kept whole, or kept under a mask; equal masks are stored
once. Tq queries, Tk keys; L heads that differ (1 where all are alike).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Rule(Protocol):
    """Which keys a query may read, causality aside; hashable, so that its layouts are kept."""

    n_heads: int  # 1 where all heads follow the same rule

    def sees(self, i: Tensor, j: Tensor, head: Any) -> Tensor:
        """Whether the query at i reads the key at j, bool of their common shape.

        Both are counted as keys are (int64); `head` is an integer or a tensor of the same shape.
        """

    def spans(self, first: int, last: int) -> Sequence[tuple[int, int]]:
        """Ranges [start, stop) outside which queries first..last read nothing."""


@dataclass(frozen=True, eq=False)
class BlockLayout:
    """Which key blocks each query block reads, in compressed rows: for all heads or for each."""

    n_q: int
    n_k: int
    rows: Tensor  # (L * query blocks + 1,) int32, where each row of blocks starts in `cols`
    cols: Tensor  # (n,) int32, kept key blocks, ascending in each row
    masks_of: Tensor  # (n,) int32: -1 where every pair is seen, else an index of `masks`
    masks: Tensor  # (m, block, block) bool, [query, key]
    block: int = 64

    @property
    def n_heads(self) -> int:
        """L: 1, or as many as there are query heads."""
        return (len(self.rows) - 1) // max(1, -(-self.n_q // self.block))

    @cached_property
    def pairs(self) -> int:
        """Query-key pairs seen, over all L heads."""
        whole = self.masks_of < 0
        row_of = torch.repeat_interleave(self.rows.diff()) % max(1, -(-self.n_q // self.block))
        height = (self.n_q - row_of * self.block).clamp(max=self.block)
        width = (self.n_k - self.cols * self.block).clamp(max=self.block)
        partial = self.masks.sum((1, 2))[self.masks_of[~whole].long()]
        return int((height * width)[whole].sum() + partial.sum())


EVERYWHERE = ((0, 1 << 62),)


@dataclass(frozen=True)
class Everything:
    """The rule of dense attention."""

    n_heads: int = 1

    def sees(self, i: Tensor, j: Tensor, head: Any) -> Tensor:
        """Always."""
        return torch.ones_like(i + j, dtype=torch.bool)

    def spans(self, first: int, last: int) -> Sequence[tuple[int, int]]:
        """Everywhere."""
        return EVERYWHERE


class Extent(NamedTuple):
    """The square of pairs that a layout is for; query i stands at i + offset among the keys."""

    n_q: int
    n_k: int
    causal: bool
    offset: int
    block: int


@lru_cache(maxsize=64)
def layout(
    rule: Rule, n_q: int, n_k: int, *, causal: bool, offset: int, block: int = 64
) -> BlockLayout:
    """The blocks that a rule keeps; query i stands at i + offset among the keys."""
    extent = Extent(n_q, n_k, causal, offset, block)
    rows, cols, masks_of, masks = [0], [], [], []
    index: dict[bytes, int] = {}
    for head in range(rule.n_heads):
        for first in range(0, n_q, block):
            columns, seen, whole = _block_row(rule, head, first, extent)
            for column, mask, everything in zip(columns, seen, whole, strict=True):
                known = -1 if everything else index.setdefault(mask.numpy().tobytes(), len(masks))
                if known == len(masks):
                    masks.append(mask)
                cols.append(column)
                masks_of.append(known)
            rows.append(len(cols))
    numbers = (torch.tensor(x, dtype=torch.int32) for x in (rows, cols, masks_of))
    stacked = torch.stack(masks) if masks else torch.zeros(0, block, block, dtype=torch.bool)
    return BlockLayout(n_q, n_k, *numbers, stacked, block)


def _block_row(
    rule: Rule, head: int, first: int, extent: Extent
) -> tuple[list[int], Tensor, list[bool]]:
    """Key blocks that the queries from `first` on read, their masks, and which are all True."""
    n_q, n_k, causal, offset, block = extent
    height = min(block, n_q - first)
    columns = _candidates(rule, first + offset, height, extent)
    i = torch.arange(first + offset, first + offset + height)[None, :, None]
    j = (columns[:, None] * block + torch.arange(block))[:, None, :]
    seen = (rule.sees(i, j, head) & (j < n_k)).expand(len(columns), height, block)
    if causal:
        seen = seen & (j <= i)
    kept = seen.any(2).any(1)
    columns, seen, inside = columns[kept], seen[kept], (j < n_k)[kept]
    whole = (seen | ~inside).all(2).all(1)
    masks = seen.new_zeros(len(columns), block, block)
    masks[:, :height] = seen
    return columns.tolist(), masks, whole.tolist()


def _candidates(rule: Rule, place: int, height: int, extent: Extent) -> Tensor:
    """Key blocks that queries from `place` on may read at all, ascending, (n,) int64."""
    end = min(extent.n_k, place + height) if extent.causal else extent.n_k
    kept: set[int] = set()
    for start, stop in rule.spans(place, place + height - 1):
        start, stop = max(0, start), min(end, stop)
        kept.update(range(start // extent.block, -(-stop // extent.block) if start < stop else 0))
    return torch.tensor(sorted(kept), dtype=torch.int64)
