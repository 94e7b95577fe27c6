"""ALiBi: scores fall linearly with the distance, at a slope of each head's own.

    s_ij = q_i . k_j / sqrt(d) - m_h |i - j|,   m_h = 2^(-8h/H)

i, j positions; h = 1..H the head. |i - j| is i - j wherever a causal query sees; in a bidirectional
model it is the symmetric form. For H that is no power of two see `_slopes.py`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from harness.card import Card
from impls.positions._bias import DistanceBias
from impls.positions._slopes import slopes
from impls.positions.interface import LayerShape, PositionRecipe

CARD = Card(
    cls="ALiBi",
    title="ALiBi",
    paper="arXiv:2108.12409",
    year=2021,
    summary="Each head adds a fixed linear penalty on distance to its scores.",
    oracle="transformers' Bloom slopes and bias, equal after the softmax",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ALiBi(PositionRecipe):
    """Attention with linear biases."""

    injected_at: ClassVar = ("score",)
    depends_on: ClassVar = "relative"

    def build(self, shape: LayerShape) -> "ALiBiEncoding":
        """The penalty for this many heads; nothing is learned."""
        return ALiBiEncoding(shape)


class ALiBiEncoding(DistanceBias):
    """A linear penalty, the same in every layer."""

    def __init__(self, shape: LayerShape) -> None:
        super().__init__(shape)
        # No buffer: a model turned to bfloat16 would round the slopes.
        self.slopes = torch.tensor(slopes(shape.n_heads), dtype=torch.float64)

    def of_distance(self, h: Tensor, distance: Tensor, dtype: torch.dtype) -> Tensor:
        """-m_h |i - j|."""
        return -self.slopes.to(h.device, dtype)[h] * distance.abs()
