"""Sliding window: a query reads the last keys only, so cost and cache stop growing.

    query i reads key j where 0 <= i - j < w;   |i - j| <= w / 2 where not causal

w window in tokens, the query's own among them; n layers together reach n (w - 1) tokens back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from harness.card import Card
from impls.attention._sparse import SparseAttention
from impls.attention._window_cache import WindowCache
from impls.attention.interface import Capabilities

CARD = Card(
    cls="SlidingWindow",
    title="Sliding window",
    paper="arXiv:2310.06825",
    year=2023,
    summary="Reads the last keys only; cost linear in the length, the cache bounded.",
    oracle="attention/peers/flex",
)


@dataclass(frozen=True)
class Window:
    """Keys at most `before` back and, where not causal, at most `after` ahead."""

    before: int
    after: int
    n_heads: int = 1

    def sees(self, i: Tensor, j: Tensor, head: Any) -> Tensor:
        """Whether j is within the window of i."""
        return (i - j <= self.before) & (j - i <= self.after)

    def spans(self, first: int, last: int) -> Sequence[tuple[int, int]]:
        """The windows of these queries together."""
        return [(first - self.before, last + self.after + 1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class SlidingWindow(SparseAttention):
    """Attention over the last `window` keys."""

    window: int = 512  # Mistral 7B: 4096

    capabilities: ClassVar = Capabilities(bias=True, cost="subquadratic", decoding="window")

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window must be at least 1, got {self.window}")

    def rule(self, *, causal: bool, n_heads: int, n_k: int) -> Window:
        """The window; half of it on either side where not causal."""
        if causal:
            return Window(self.window - 1, 0)
        return Window(self.window // 2, self.window // 2)

    def init_state(self, batch: int, max_len: int) -> WindowCache:
        """Room for one window."""
        return WindowCache(self.window)
