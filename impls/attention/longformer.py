"""Longformer: a window, dilated or not, and a few global tokens with projections of their own.

    token i reads j where |i - j| <= r w / 2 and r divides i - j, and every global j;
    a global token reads everything, y_i = softmax(s q^g_i K^g) V^g with W_qg, W_kg, W_vg

w window over both sides, r dilation, s scale; the first tokens are the global ones. Causal: of
these keys those with j <= i.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness.card import Card
from impls.attention._sparse import SparseAttention
from impls.attention._window_cache import WindowCache
from impls.attention.interface import Capabilities
from impls.models.attention import Dense, SelfAttention
from impls.models.hooks import Cache, Frame, LayerShape, PositionEncoding

CARD = Card(
    cls="Longformer",
    title="Longformer",
    paper="arXiv:2004.05150",
    year=2020,
    summary="Reads a window and global tokens, which read everything by projections of their own.",
    oracle="transformers' LongformerSelfAttention with the same weights",
)


@dataclass(frozen=True)
class WindowAndGlobal:
    """Keys within `reach`, every `dilation`-th of them, and all pairs with a global token."""

    reach: int
    dilation: int
    n_global: int
    n_heads: int = 1

    def sees(self, i: Tensor, j: Tensor, head: Any) -> Tensor:
        """Whether j is near i, or one of the two is global."""
        near = ((i - j).abs() <= self.reach) & ((i - j) % self.dilation == 0)
        return near | (i < self.n_global) | (j < self.n_global)

    def spans(self, first: int, last: int) -> Sequence[tuple[int, int]]:
        """The window and the global tokens; everything for a global query."""
        if first < self.n_global:
            return [(0, 1 << 62)]
        return [(0, self.n_global), (first - self.reach, last + self.reach + 1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Longformer(SparseAttention):
    """Window and global attention; on heads alone, global tokens use the projections given."""

    window: int = 512  # over both sides
    dilation: int = 1
    n_global: int = 1

    capabilities: ClassVar = Capabilities(
        bias=True, cost="subquadratic", shift=False, decoding="window"
    )

    def __post_init__(self) -> None:
        if self.window < 2 or self.window % 2:
            raise ValueError(f"window must be even and at least 2, got {self.window}")
        if self.dilation < 1:
            raise ValueError(f"dilation must be at least 1, got {self.dilation}")
        if self.n_global < 0:
            raise ValueError(f"n_global must not be negative, got {self.n_global}")

    @property
    def reach(self) -> int:
        """Tokens from a query to the farthest key of its window."""
        return self.window // 2 * self.dilation

    def rule(self, *, causal: bool, n_heads: int, n_k: int) -> WindowAndGlobal:
        """Window and global tokens."""
        return WindowAndGlobal(self.reach, self.dilation, self.n_global)

    def init_state(self, batch: int, max_len: int) -> WindowCache:
        """Room for the global tokens and one window."""
        return WindowCache(self.reach + 1, sinks=self.n_global)

    def build(self, shape: LayerShape, layer: int = 0) -> "LongformerAttention":
        """The layer with a second set of projections for the global tokens."""
        return LongformerAttention(shape, self)


class LongformerCache(WindowCache):
    """Beside the window, the global tokens' own keys and values, before `PositionEncoding.keys`."""

    def __init__(self, technique: Longformer) -> None:
        super().__init__(technique.reach + 1, sinks=technique.n_global)
        self.of_global = Cache(max(1, technique.n_global))


class LongformerAttention(SelfAttention):
    """Self-attention whose global tokens query everything by projections of their own."""

    def __init__(self, shape: LayerShape, technique: Longformer) -> None:
        super().__init__(shape, technique)
        self.technique = technique
        self.q_global, self.k_global, self.v_global = (
            nn.Linear(proj.in_features, proj.out_features, bias=False)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )

    def init_state(self, batch: int, max_len: int) -> LongformerCache:
        """Room for the global tokens, twice, and one window."""
        return LongformerCache(self.technique)

    def forward(  # noqa: D102 - as in AttentionLayer
        self,
        x: Tensor,
        *,
        pos: Tensor,
        encoding: PositionEncoding,
        keep: Tensor | None = None,
        state: object | None = None,
        causal: bool = True,
    ) -> Tensor:
        cache = state if isinstance(state, LongformerCache) else None
        seen = cache.length if cache else 0
        n = min(max(0, self.technique.n_global - seen), x.shape[1])  # global tokens in x
        q, k, v = (self._heads(proj(x)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        y = self._with_keys(q, k, v, pos, encoding, keep, cache, causal)
        if n:
            y = torch.cat((self._global(x, n, pos, encoding, keep, cache, causal), y[:, :, n:]), 2)
        return self.o_proj(y.transpose(1, 2).flatten(2))

    def _global(  # noqa: PLR0917 - the call's own arguments, passed on
        self,
        x: Tensor,
        n: int,
        pos: Tensor,
        encoding: PositionEncoding,
        keep: Tensor | None,
        cache: LongformerCache | None,
        causal: bool,
    ) -> Tensor:
        """Output of the first n tokens, (B, H, n, d): over x or, causal, global tokens."""
        read = n if causal else x.shape[1]
        q_pos, k_pos = pos[:, :n], pos[:, :read]
        keep = None if keep is None else keep[:, :read]
        q = self._heads(self.q_global(x[:, :n]))
        k, v = (self._heads(proj(x[:, :read])) for proj in (self.k_global, self.v_global))
        if cache is not None:
            k, v, _, k_pos, keep = cache.of_global.append(k, v, k_pos, keep)
        frame = Frame(q_pos, k_pos, causal=causal, keep=keep)
        keys = encoding.keys(k, frame)
        return Dense().attend(
            encoding.queries(q, frame),
            keys,
            v,
            causal=causal,
            keep=keep,
            bias=encoding.score_bias(q, keys if encoding.static_keys else k, frame),
            scale=encoding.scale(self.shape.d_head),
        )
