"""BigBird: blocks of a window, of random places and of global tokens.

    query block b reads key block c where |b - c| <= (w - 1) / 2, c < g, b < g, or c in R(b)

w, g window and global blocks; R(b) random blocks, drawn for each head from those left over, of the
earlier ones where causal. With them any token reaches any other in a few layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from harness.card import Card
from impls.attention._layout import EVERYWHERE
from impls.attention._random_blocks import random_blocks
from impls.attention._sparse import SparseAttention
from impls.attention.interface import Capabilities

CARD = Card(
    cls="BigBird",
    title="BigBird",
    paper="arXiv:2007.14062",
    year=2020,
    summary="Reads a window, global tokens at the start and random blocks.",
    oracle="attention/peers/flex",
)


@dataclass(frozen=True)
class RandomWindowGlobal:
    """The three kinds of blocks."""

    technique: "BigBird"
    causal: bool
    n_blocks: int
    n_heads: int
    drawn: Tensor = field(compare=False)  # (H, blocks, n_random), what the rest determines

    def sees(self, i: Tensor, j: Tensor, head: Any) -> Tensor:
        """Whether the block of j is one of those that the block of i reads."""
        t = self.technique
        b, c = i // t.block, j // t.block
        near = (b - c).abs() <= t.n_window // 2
        return near | (c < t.n_global) | (b < t.n_global) | self._drawn(b, c, head)

    def _drawn(self, b: Tensor, c: Tensor, head: Any) -> Tensor:
        rows = self.drawn.to(b.device)[head, b.clamp(0, self.drawn.shape[1] - 1)]
        return (rows == c[..., None]).any(-1)

    def spans(self, first: int, last: int) -> Sequence[tuple[int, int]]:
        """Random blocks lie everywhere."""
        return EVERYWHERE


@dataclass(frozen=True, kw_only=True, slots=True)
class BigBird(SparseAttention):
    """Random, window and global blocks; sizes of the paper's base models."""

    block: int = 64
    n_window: int = 3  # blocks, odd
    n_global: int = 2
    n_random: int = 3
    seed: int = 0

    capabilities: ClassVar = Capabilities(bias=True, cost="subquadratic", shift=False)

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ValueError(f"block must be at least 1, got {self.block}")
        if self.n_window < 1 or self.n_window % 2 == 0:
            raise ValueError(f"n_window must be odd and at least 1, got {self.n_window}")
        for name in ("n_global", "n_random", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def rule(self, *, causal: bool, n_heads: int, n_k: int) -> RandomWindowGlobal:
        """The blocks, random ones for each head."""
        n_heads, n_blocks = n_heads if self.n_random else 1, max(1, -(-n_k // self.block))
        first, gap = self.n_global, self.n_window // 2 + 1
        drawn = random_blocks(self.seed, n_heads, n_blocks, self.n_random, first, gap, causal)
        return RandomWindowGlobal(self, causal, n_blocks, n_heads, drawn)
