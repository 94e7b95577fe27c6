"""What plugs into a model: position encodings, attention layers, caches. A model knows these only.

B batch, T tokens (Tq of queries, Tk of keys), D model width, H query heads, G key/value heads
(H a multiple of G), d head width. Positions are integers, explicit for queries and keys, so that a
cache's offset, packed documents and shards of a sequence need no special case.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from impls.models.cache import Cache, Held

__all__ = [
    "AttentionLayer", "AttentionRecipe", "Cache", "EncodingRecipe", "Frame", "Held", "LayerShape",
    "PositionEncoding", "ScoreMod", "visible",
]  # fmt: skip

ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]  # score, b, h, q_pos, k_pos


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerShape:
    """What a position encoding or an attention layer has to fit."""

    d_model: int = 64
    n_heads: int = 4
    n_kv_heads: int = 4
    d_head: int = 16
    n_layers: int = 2
    max_len: int = 512  # the length trained on; tables of positions have this size
    causal: bool = True

    def __post_init__(self) -> None:
        for name in ("d_model", "n_heads", "n_kv_heads", "d_head", "n_layers", "max_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_heads {self.n_heads} is no multiple of n_kv_heads {self.n_kv_heads}: "
                "each key/value head serves equally many query heads"
            )


class Frame:
    """Where the queries and keys of one attention call stand.

    Args:
        q_pos: positions of the queries, (B or 1, Tq) int64.
        k_pos: positions of the keys, (B or 1, Tk) int64.
        causal: whether a query sees no later key.
        offset: query i stands beside key i + offset; None: the last query beside the last key.
        keep: (B, Tk) bool, False for padding, which nobody sees.
        length: tokens of the whole sequence so far, on which frequency rules depend; None: one
            more than the largest key position.
    """

    __slots__ = ("causal", "k_pos", "keep", "length", "offset", "q_pos")

    def __init__(
        self,
        q_pos: Tensor,
        k_pos: Tensor,
        *,
        causal: bool = True,
        offset: int | None = None,
        keep: Tensor | None = None,
        length: int | None = None,
    ) -> None:
        self.q_pos, self.k_pos = q_pos, k_pos
        self.causal, self.keep = causal, keep
        self.offset = k_pos.shape[1] - q_pos.shape[1] if offset is None else offset
        self.length = int(k_pos.max()) + 1 if length is None and k_pos.numel() else length or 0

    @property
    def distance(self) -> Tensor:
        """How far back each key stands, q_pos - k_pos, (B or 1, Tq, Tk) int64."""
        return self.q_pos[:, :, None] - self.k_pos[:, None, :]

    def visible(self) -> Tensor:
        """Which key each query may see, (B or 1, 1, Tq, Tk) bool."""
        n_q, n_k = self.q_pos.shape[1], self.k_pos.shape[1]
        return visible(n_q, n_k, self.causal, self.offset, self.keep, self.k_pos.device)


def visible(
    n_q: int,
    n_k: int,
    causal: bool,
    offset: int,
    keep: Tensor | None,
    device: torch.device | None = None,
) -> Tensor:
    """Which of n_k keys each of n_q queries may see, (B or 1, 1, Tq, Tk) bool."""
    mask = torch.ones(n_q, n_k, dtype=torch.bool, device=device)
    mask = (mask.tril(offset) if causal else mask)[None, None]
    return mask if keep is None else mask & keep[:, None, None, :]


class PositionEncoding(nn.Module):
    """How a model knows where its tokens stand; these defaults tell it nothing.

    A model calls `embed` once, the other hooks in every layer, on `at(layer)`.
    """

    static_keys = True  # `keys` depends on a key's own position alone: a cache may hold its result
    max_len: int | None = None  # positions at or beyond it raise ValueError; None: none does

    def at(self, layer: int) -> "PositionEncoding":
        """The encoding as one layer uses it: itself, unless layers have their own parameters."""
        return self

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        """Token embeddings (B, T, D) at positions (B or 1, T), changed before the first layer."""
        return x

    def queries(self, q: Tensor, frame: Frame) -> Tensor:
        """Queries (B, H, Tq, d) as they enter the product with the keys."""
        return q

    def keys(self, k: Tensor, frame: Frame) -> Tensor:
        """Keys (B, G, Tk, d) as they enter the product with the queries."""
        return k

    def score_bias(self, q: Tensor, k: Tensor, frame: Frame) -> Tensor | None:
        """What is added to the scaled scores, (B or 1, H, Tq, Tk).

        Args:
            q: queries before `queries`, (B, H, Tq, d).
            k: keys as a cache holds them, after `keys` if `static_keys`, (B, G, Tk, d).
            frame: where they stand.
        """
        return None

    def score_mod(self) -> ScoreMod | None:
        """`score_bias` as a function of one score and two positions, in FlexAttention's form.

        None where the bias is not pointwise or there is none.
        """
        return None

    def value_bias(self, weights: Tensor, frame: Frame) -> Tensor | None:
        """What is added to the output, (B, H, Tq, d), from the weights (B, H, Tq, Tk)."""
        return None

    def scale(self, d_head: int) -> float:
        """Factor of the product of query and key."""
        return d_head**-0.5

    @property
    def reads_weights(self) -> bool:
        """Whether `value_bias` does anything, so that the weights must be materialised."""
        return type(self).value_bias is not PositionEncoding.value_bias


class EncodingRecipe(Protocol):
    """A position technique: builds its encoding for a shape."""

    def build(self, shape: LayerShape) -> PositionEncoding:
        """The encoding, with parameters where it learns some."""


class AttentionLayer(nn.Module):
    """What stands between the two residual additions of a block: x to y, (B, T, D) both."""

    def forward(
        self,
        x: Tensor,
        *,
        pos: Tensor,
        encoding: PositionEncoding,
        keep: Tensor | None = None,
        state: object | None = None,
        causal: bool = True,
    ) -> Tensor:
        """Attend over x and, with a state, over all that the state has taken in before.

        Args:
            x: (B, T, D).
            pos: positions, (B or 1, T) int64.
            encoding: the position encoding as this layer uses it.
            keep: (B, T) bool, False for padding.
            state: from `init_state`; x is taken into it.
            causal: whether a token sees no later one.
        """
        raise NotImplementedError

    def init_state(self, batch: int, max_len: int) -> object:
        """An empty decoding state for `batch` sequences of at most `max_len` tokens."""
        raise NotImplementedError


class AttentionRecipe(Protocol):
    """An attention technique: builds its layer for a shape."""

    def build(self, shape: LayerShape, layer: int = 0) -> AttentionLayer:
        """The layer, with its projections."""
