"""Differential attention: the difference of two softmaxes, so that what both attend to cancels.

    y_h = (1 - lambda_init) RMSNorm((softmax(s q1 k1^T) - lambda softmax(s q2 k2^T)) v)
    lambda = exp(l_q1 . l_k1) - exp(l_q2 . l_k2) + lambda_init
    lambda_init = 0.8 - 0.6 exp(-0.3 (layer - 1)),   layer counted from 1

Of H query and G key heads the first half is q1, k1, the second q2, k2: H/2 differential heads,
with values twice as wide, [v_g, v_{g + G/2}]. Projections are the usual ones.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.card import Card
from impls.attention.interface import (
    AttentionBlock,
    AttentionLayer,
    Cache,
    Capabilities,
    LayerShape,
    PositionEncoding,
    Work,
)
from impls.models.attention import Dense, SelfAttention

CARD = Card(
    cls="DifferentialAttention",
    title="Differential attention",
    paper="arXiv:2410.05258",
    year=2024,
    summary="Each head is the difference of two softmaxes, which cancels common-mode noise.",
    oracle="transformers' diffllama attention; identity: lambda = 0 is standard attention",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DifferentialAttention(AttentionBlock):
    """Two softmaxes per head, the second subtracted."""

    lambda_std: float = 0.1  # of the initial l_q1, l_k1, l_q2, l_k2

    capabilities: ClassVar = Capabilities(bias=True, cross=False)

    def __post_init__(self) -> None:
        if self.lambda_std < 0:
            raise ValueError(f"lambda_std must be at least 0, got {self.lambda_std}")

    def build(self, shape: LayerShape, layer: int = 0) -> AttentionLayer:
        """The layer; lambda starts lower in early layers.

        Raises:
            ValueError: if the heads cannot be halved.
        """
        if shape.n_heads % 2 or shape.n_kv_heads % 2:
            raise ValueError(
                f"n_heads {shape.n_heads} and n_kv_heads {shape.n_kv_heads} must be even: "
                "two heads make one differential head"
            )
        return DifferentialLayer(shape, lambda_init(layer), self.lambda_std)

    def flops(self, work: Work) -> int:
        """Projections, and the two products, the second with values twice as wide."""
        width, kv_width = work.n_heads * work.d_head, work.n_kv_heads * work.d_head
        projections = 4 * work.n_q * width * (width + kv_width)
        return work.batch * (projections + 6 * work.n_heads * work.pairs * work.d_head)

    def cache_bytes_per_token(self, shape: LayerShape, itemsize: int = 4) -> float:
        """A key and a value for every key/value head."""
        return 2 * shape.n_kv_heads * shape.d_head * itemsize


def lambda_init(layer: int) -> float:
    """The share of the second softmax that a layer starts from; layers counted from 0."""
    return 0.8 - 0.6 * math.exp(-0.3 * layer)


def difference(q: Tensor, k: Tensor, v: Tensor, lam: Tensor, **options: Any) -> Tensor:
    """softmax1 v - lam softmax2 v, (B, H/2, Tq, 2d), of q (B, H, Tq, d), k and v (B, G, Tk, d).

    Either half of v under both softmaxes: values as wide as the keys stay in the fused kernel.
    """
    halves = (half.repeat(1, 2, 1, 1) for half in v.chunk(2, dim=1))
    both = torch.cat([Dense().attend(q, k, half, **options) for half in halves], dim=-1)
    first, second = both.chunk(2, dim=1)
    return first - lam * second


class DifferentialKernel(nn.Module):
    """The difference with its learned lambda and its norm."""

    takes_bias = True

    def __init__(self, d_head: int, init: float, std: float) -> None:
        super().__init__()
        self.lambda_init = init
        self.lambda_q = nn.Parameter(torch.randn(2, d_head) * std)  # l_q1, l_q2
        self.lambda_k = nn.Parameter(torch.randn(2, d_head) * std)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        """Output (B, H/2, Tq, 2d); rows that see nothing are 0."""
        first, second = (self.lambda_q * self.lambda_k).sum(-1).exp()
        y = difference(q, k, v, (first - second + self.lambda_init).to(q.dtype), **options)
        return (1 - self.lambda_init) * F.rms_norm(y, y.shape[-1:], eps=1e-5)

    def init_state(self, batch: int, max_len: int) -> Cache:
        """Room for the keys and values of every token."""
        return Cache(max_len)


class DifferentialLayer(SelfAttention):
    """The usual layer around the difference."""

    def __init__(self, shape: LayerShape, init: float, std: float) -> None:
        super().__init__(shape, DifferentialKernel(shape.d_head, init, std))

    def forward(self, x: Tensor, *, encoding: PositionEncoding, **where: Any) -> Tensor:
        """Attend over x (B, T, D) and what the state holds.

        Raises:
            ValueError: if the encoding biases values: there are two sets of weights.
        """
        if encoding.reads_weights:
            raise ValueError(
                f"{type(encoding).__name__} adds to the values by their weights and differential "
                "attention has two sets of them: choose another of the two"
            )
        return super().forward(x, encoding=encoding, **where)
