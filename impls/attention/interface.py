"""Attention: which tokens a token reads, and how, at two levels.

An `AttentionKernel` works on heads, q (B, H, Tq, d), k (B, G, Tk, d), v (B, G, Tk, dv) to
(B, H, Tq, dv), and builds the usual layer around itself; an `AttentionBlock` owns its projections
and works on x (B, T, D). Both are recipes (frozen, JSON-able), and `build(shape, layer)` gives the
layer a model plugs in.

Causality is by index and explicit: query i sees key j if j <= i + offset. offset = Tk - Tq, the
default, puts the last query beside the last key (decoding); 0 puts the first beside the first
(torch's `is_causal`).

What every member satisfies (tests/contracts/test_attention.py): decoding token by token equals one
pass; no output depends on a later token, not in one bit; padding and the order of a batch change
nothing; a row that sees nothing is 0; gradients are right; nothing is written to inputs; the error
against float64 is at most twice that of the naive computation.
"""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from impls.attention._agreement import agreement
from impls.attention._capabilities import Capabilities, Work
from impls.models.attention import SelfAttention
from impls.models.hooks import AttentionLayer, Cache, LayerShape, PositionEncoding, visible

__all__ = [
    "AttentionBlock",
    "AttentionKernel",
    "AttentionLayer",
    "AttentionPeer",
    "Cache",
    "Capabilities",
    "LayerShape",
    "PositionEncoding",
    "Work",
    "agreement",
]


class _Technique(ABC):
    """What both levels share."""

    capabilities: ClassVar[Capabilities] = Capabilities()

    @abstractmethod
    def build(self, shape: LayerShape, layer: int = 0) -> AttentionLayer:
        """The layer for a model of this shape, freshly initialised; `layer` counts from 0."""

    @abstractmethod
    def flops(self, work: Work) -> int:
        """Floating-point operations of one forward pass, a multiply-add counted as two."""

    @abstractmethod
    def cache_bytes_per_token(self, shape: LayerShape, itemsize: int = 4) -> float:
        """Bytes by which one more token lets the decoding state of one layer grow in the long run.

        0 where `capabilities.decoding` is not "linear".
        """


class AttentionKernel(_Technique):
    """A technique on heads."""

    @abstractmethod
    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        causal: bool = True,
        offset: int | None = None,
        keep: Tensor | None = None,
        bias: Tensor | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Output (B, H, Tq, dv) in q's dtype.

        Args:
            q: queries, (B, H, Tq, d).
            k: keys, (B, G, Tk, d).
            v: values, (B, G, Tk, dv).
            causal: whether query i sees only keys j <= i + offset.
            offset: see the module; None: Tk - Tq.
            keep: (B, Tk) bool, False for padding.
            bias: (B or 1, H, Tq, Tk), added to the scaled scores.
            scale: factor of the scores; None: d ** -0.5.

        Raises:
            ValueError: where `capabilities` exclude an argument.
        """

    @property
    def takes_bias(self) -> bool:
        """Whether `attend` takes a bias."""
        return self.capabilities.bias

    @property
    def dense(self) -> bool:
        """Whether it is plain softmax over all visible keys."""
        return self.capabilities.dense

    def init_state(self, batch: int, max_len: int) -> Any:
        """An empty decoding state: a `Cache`, or what `step` of this technique keeps."""
        return Cache(max_len)

    def step(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: Any,
        *,
        keep: Tensor | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Output at T more tokens (B, H, T, dv); the state takes them in."""
        pos = _next_positions(state, q)
        held = state.append(k, v, pos, keep)
        return self.attend(q, held.k, held.v, keep=held.keep, scale=scale)

    def build(self, shape: LayerShape, layer: int = 0) -> AttentionLayer:
        """The usual projections around this kernel."""
        return SelfAttention(
            with_kv_heads(shape, self.kv_heads(shape.n_heads, shape.n_kv_heads)), self
        )

    def kv_heads(self, n_heads: int, n_kv_heads: int) -> int:
        """Key/value heads the technique has where a model asks for `n_kv_heads`: G."""
        return n_kv_heads

    def mask(self, n_q: int, n_k: int, *, causal: bool, offset: int, n_heads: int) -> Tensor:
        """Which pairs the technique may read, written out: (1, H or 1, Tq, Tk) bool."""
        return visible(n_q, n_k, causal, offset, None)

    def pairs(self, work: Work) -> int:
        """Query-key pairs the technique computes for one head; dense unless it says otherwise."""
        return work.pairs

    def kept_share(self, work: Work) -> float:
        """Share of dense attention's work that is left; blocks of it where it works in blocks."""
        return self.pairs(work) / work.pairs

    def flops(self, work: Work) -> int:
        """Two products, of queries with keys and of weights with values."""
        return 4 * work.batch * work.n_heads * self.pairs(work) * work.d_head

    def min_bytes(self, work: Work) -> int:
        """Bytes that must be read and written at the least: q, k, v once, the output once."""
        own = 2 * work.n_heads * work.n_q + 2 * work.n_kv_heads * work.n_k
        return work.batch * own * work.d_head * work.itemsize

    def cache_bytes_per_token(self, shape: LayerShape, itemsize: int = 4) -> float:
        """A key and a value for every key/value head."""
        if self.capabilities.decoding != "linear":
            return 0
        return 2 * self.kv_heads(shape.n_heads, shape.n_kv_heads) * shape.d_head * itemsize


class AttentionPeer(AttentionKernel):
    """A library's attention: dense on its own, or reading what one of our techniques reads."""

    @abstractmethod
    def adopt(self, technique: AttentionKernel, *, fast: bool = False) -> AttentionKernel:
        """The library's attention over the pairs that the technique reads.

        Args:
            technique: whose pairs.
            fast: whether to spend half a minute on compiling first, where the library can.
        """

    @abstractmethod
    def backend(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool = True) -> str:
        """What the library runs for a call on these tensors."""


class AttentionBlock(_Technique):
    """A technique that owns its projections; `build` is all of it.

    Its layer's `flops` counts the projections too.
    """

    def min_bytes(self, work: Work) -> int:
        """Bytes that must be read and written at the least: x once, y once."""
        return 2 * work.batch * work.n_q * work.n_heads * work.d_head * work.itemsize


def with_kv_heads(shape: LayerShape, n_kv_heads: int) -> LayerShape:
    """The shape with another number of key/value heads."""
    return replace(shape, n_kv_heads=n_kv_heads)


def _next_positions(state: Any, q: Tensor) -> Tensor:
    return torch.arange(state.length, state.length + q.shape[2], device=q.device)[None]
