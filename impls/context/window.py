"""Window attention: a query reads the last w keys only, and the first few if asked for.

    query i reads key j where i - j < w, or j < s at distance min(i, s + w - 1) - j

w window, s sinks (arXiv:2309.17453). No distance is beyond what training has shown, and the cache
holds w + s keys however long the text; what has left the window is gone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from harness.card import Card
from impls.attention._window_cache import WindowCache
from impls.context._rescaled import rotation_of
from impls.context._scored import TwoBranch
from impls.context.interface import Cache, EncodingRule, PositionEncoding

CARD = Card(
    cls="WindowAttention",
    title="Window attention",
    paper="arXiv:2004.05150",
    year=2020,
    summary="Reads a window of the last keys, and sinks where asked for; the cache stays bounded.",
    oracle="identity: full attention for texts no longer than the window; a masked pass beyond",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowAttention(EncodingRule):
    """Attention to a window of the last keys."""

    window: int | None = None  # None: the trained length
    sinks: int = 0

    kind: ClassVar = "mask"

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ValueError(f"window must be at least 1 or None, got {self.window}")
        if self.sinks < 0:
            raise ValueError(f"sinks must not be negative, got {self.sinks}")

    def extended(
        self, encoding: PositionEncoding, *, train_len: int, target_len: int
    ) -> PositionEncoding:
        """The rotation, with keys beyond the window hidden."""
        window = self._window(train_len)

        def at_sinks(q_pos: Tensor, k_pos: Tensor) -> tuple[Tensor, Tensor]:
            return q_pos.clamp(max=self.sinks + window - 1), k_pos

        return TwoBranch(rotation_of(encoding), window, at_sinks, hidden=self.sinks)

    def cache(self, train_len: int) -> Callable[[], Cache]:
        """Holds the window and the sinks."""
        return lambda: WindowCache(self._window(train_len), sinks=self.sinks)

    def _window(self, train_len: int) -> int:
        """The window whose farthest sink is no farther than training has shown."""
        return max(1, train_len - self.sinks) if self.window is None else self.window
