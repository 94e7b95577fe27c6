"""Block-sparse attention: whole blocks of pairs are read or left out, by a butterfly or by a list.

    query block b reads key block c where |b - c| < n_local, or b and c differ in one binary digit

The butterfly keeps log2 of the blocks; any other pattern is given as a list of (b, c).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.card import Card
from impls.attention._layout import EVERYWHERE
from impls.attention._sparse import SparseAttention
from impls.attention.interface import Capabilities

CARD = Card(
    cls="BlockSparseAttention",
    title="Block-sparse",
    paper="arXiv:2205.14135",
    year=2022,
    summary="Reads whole blocks, in a butterfly around the diagonal or as listed.",
    oracle="attention/peers/flex",
)


@dataclass(frozen=True)
class Butterfly:
    """Blocks near the diagonal, and those whose number differs in one binary digit."""

    block: int
    n_local: int
    n_heads: int = 1

    def sees(self, i: Tensor, j: Tensor, head: Any) -> Tensor:
        """Whether the block of i reads the block of j."""
        b, c = i // self.block, j // self.block
        digits = b ^ c
        return ((b - c).abs() < self.n_local) | ((digits > 0) & (digits & (digits - 1) == 0))

    def spans(self, first: int, last: int) -> Sequence[tuple[int, int]]:
        """The butterfly reaches everywhere."""
        return EVERYWHERE


@dataclass(frozen=True)
class Listed:
    """The blocks of a list."""

    block: int
    kept: tuple[tuple[int, int], ...]
    n_heads: int = 1

    def sees(self, i: Tensor, j: Tensor, head: Any) -> Tensor:
        """Whether the block of i and the block of j are a pair of the list."""
        b, c = i // self.block, j // self.block
        width = 1 + max(max(pair) for pair in self.kept)
        table = torch.zeros(width + 1, width + 1, dtype=torch.bool, device=b.device)
        table[tuple(torch.tensor(self.kept).T)] = True
        return table[b.clamp(0, width), c.clamp(0, width)]

    def spans(self, first: int, last: int) -> Sequence[tuple[int, int]]:
        """The listed key blocks of these queries."""
        rows = range(first // self.block, last // self.block + 1)
        return [(c * self.block, (c + 1) * self.block) for b, c in self.kept if b in rows]


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockSparseAttention(SparseAttention):
    """Attention over kept blocks."""

    block: int = 64
    n_local: int = 2  # the own block and the one beside it
    kept: tuple[tuple[int, int], ...] = ()  # (query block, key block); empty: the butterfly

    capabilities: ClassVar = Capabilities(bias=True, cost="subquadratic", shift=False)

    def __post_init__(self) -> None:
        for name in ("block", "n_local"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if wrong := [pair for pair in self.kept if min(pair) < 0]:
            raise ValueError(f"blocks are counted from 0, kept has {wrong[0]}")

    def rule(self, *, causal: bool, n_heads: int, n_k: int) -> Butterfly | Listed:
        """The list, or the butterfly where there is none."""
        if self.kept:
            return Listed(self.block, self.kept)
        return Butterfly(self.block, self.n_local)
