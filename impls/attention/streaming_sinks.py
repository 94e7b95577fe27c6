"""StreamingLLM: a window, and the first tokens for good, so that a stream may go on for ever.

    query i reads key j where j < s or 0 <= i - j < w, at the distance that their places in the
    cache have:   i - j within the window,   min(i, s + w - 1) - j to a sink

s sinks, w window; a softmax needs somewhere to put what it reads from nobody, and the first tokens
have learned to take it. Distances beyond s + w, which training may never have shown, never occur.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.card import Card
from impls.attention._sparse import SparseAttention
from impls.attention._window_cache import WindowCache
from impls.attention.interface import Capabilities
from impls.models.attention import SelfAttention
from impls.models.hooks import Frame, LayerShape, PositionEncoding

CARD = Card(
    cls="StreamingSinks",
    title="StreamingLLM (attention sinks)",
    paper="arXiv:2309.17453",
    year=2023,
    summary="Reads a window and the first tokens, at distances as in the cache; decodes for ever.",
    oracle="attention/peers/flex",
)


@dataclass(frozen=True)
class WindowAndSinks:
    """The last keys and the first ones."""

    window: int
    sinks: int
    causal: bool
    n_heads: int = 1

    def sees(self, i: Tensor, j: Tensor, head: Any) -> Tensor:
        """Whether j is a sink or in the window of i."""
        distance = i - j if self.causal else (i - j).abs()
        return (j < self.sinks) | (distance < self.window)

    def spans(self, first: int, last: int) -> Sequence[tuple[int, int]]:
        """The windows of these queries together, and the sinks."""
        return [(0, self.sinks), (first - self.window + 1, last + self.window)]


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamingSinks(SparseAttention):
    """Attention over `sinks` first and `window` last keys."""

    sinks: int = 4
    window: int = 1020

    capabilities: ClassVar = Capabilities(
        bias=True, cost="subquadratic", shift=False, decoding="window"
    )

    def __post_init__(self) -> None:
        if self.sinks < 0:
            raise ValueError(f"sinks must not be negative, got {self.sinks}")
        if self.window < 1:
            raise ValueError(f"window must be at least 1, got {self.window}")

    def rule(self, *, causal: bool, n_heads: int, n_k: int) -> WindowAndSinks:
        """Window and sinks; as far ahead as back where not causal."""
        return WindowAndSinks(self.window, self.sinks, causal)

    def init_state(self, batch: int, max_len: int) -> WindowCache:
        """Room for the sinks and one window."""
        return WindowCache(self.window, sinks=self.sinks)

    def build(self, shape: LayerShape, layer: int = 0) -> "SinkAttention":
        """The usual projections, with positions as in the cache."""
        return SinkAttention(shape, self)


class SinkAttention(SelfAttention):
    """Self-attention that counts distances as a cache of sinks and window does."""

    def __init__(self, shape: LayerShape, technique: StreamingSinks) -> None:
        super().__init__(shape, technique)
        self.technique = technique

    def forward(  # noqa: D102 - as in AttentionLayer
        self, x: Tensor, *, encoding: PositionEncoding, **options: Any
    ) -> Tensor:
        if encoding.reads_weights:
            raise ValueError(
                f"{type(encoding).__name__} reads the weights, which attention over a window and "
                "sinks does not write out: choose another of the two"
            )
        t = self.technique
        places = PlacesInCache(encoding, t.sinks, t.sinks + t.window)
        return super().forward(x, encoding=places, **options)


class PlacesInCache(PositionEncoding):
    """An encoding by which a query stands elsewhere for the sinks than for the window.

    Queries and keys get twice the width: the first half meets in the window, the second at the
    sinks, the other half of each key being 0. So one product has both distances.
    """

    static_keys = False  # the cache holds keys as they were projected, at half this width

    def __init__(self, encoding: PositionEncoding, sinks: int, size: int) -> None:
        super().__init__()
        self.encoding, self.sinks, self.size = encoding, sinks, size

    def queries(self, q: Tensor, frame: Frame) -> Tensor:
        """(B, H, Tq, 2 d)."""
        near, far = self._frames(frame)
        return torch.cat((self.encoding.queries(q, near), self.encoding.queries(q, far)), dim=-1)

    def keys(self, k: Tensor, frame: Frame) -> Tensor:
        """(B, G, Tk, 2 d)."""
        near, _ = self._frames(frame)
        keys, sink = self.encoding.keys(k, near), self._sink(frame)[:, None, :, None]
        return torch.cat((keys.masked_fill(sink, 0.0), keys.masked_fill(~sink, 0.0)), dim=-1)

    def score_bias(self, q: Tensor, k: Tensor, frame: Frame) -> Tensor | None:
        """The encoding's, each key's by its own distance."""
        near, far = self._frames(frame)
        k = self.encoding.keys(k, near) if self.encoding.static_keys else k
        in_window, of_sinks = (self.encoding.score_bias(q, k, place) for place in (near, far))
        if in_window is None or of_sinks is None:
            return None
        return torch.where(self._sink(frame)[:, None, None, :], of_sinks, in_window)

    def scale(self, d_head: int) -> float:
        """The encoding's."""
        return self.encoding.scale(d_head)

    def _sink(self, frame: Frame) -> Tensor:
        return frame.k_pos < self.sinks

    def _frames(self, frame: Frame) -> tuple[Frame, Frame]:
        """As the window sees the queries, and as the sinks do: never farther than the cache."""
        q_pos, k_pos, length = frame.q_pos, frame.k_pos, min(frame.length, self.size)
        options: Any = {"causal": frame.causal, "offset": frame.offset, "keep": frame.keep}
        near = Frame(q_pos, k_pos, length=length, **options)
        return near, Frame(q_pos.clamp(max=self.size - 1), k_pos, length=length, **options)
