"""Sandwich: scores get the inner product of two sinusoidal embeddings, which falls with distance.

    s_ij = q_i . k_j / sqrt(d) + p_i . p_j / r_h,   p_i . p_j = sum_m cos((i - j) base^(-2m/D'))
    r_h = 8h/H

i, j positions; m < D'/2; h = 1..H the head, r_h its compression ratio. Nothing is learned.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from harness.card import Card
from impls.positions._bias import DistanceBias
from impls.positions._rotary import inverse_frequencies
from impls.positions.interface import LayerShape, PositionRecipe

CARD = Card(
    cls="Sandwich",
    title="Sandwich",
    paper="arXiv:2212.10356",
    year=2022,
    summary="The inner product of sinusoidal embeddings is the bias, at a strength for each head.",
    oracle="brute-force inner products of the embeddings",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sandwich(PositionRecipe):
    """Inner products of sinusoids as a bias."""

    width: int = 128
    base: float = 10_000.0

    injected_at: ClassVar = ("score",)
    depends_on: ClassVar = "relative"

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2:
            raise ValueError(f"width must be even and at least 2, got {self.width}")
        if self.base <= 1:
            raise ValueError(f"base must be above 1, got {self.base}")

    def build(self, shape: LayerShape) -> "SandwichEncoding":
        """The bias for this many heads."""
        return SandwichEncoding(shape, self)


class SandwichEncoding(DistanceBias):
    """The bias, the same in every layer."""

    def __init__(self, shape: LayerShape, recipe: Sandwich) -> None:
        super().__init__(shape)
        self.theta = inverse_frequencies(recipe.width, recipe.base)

    def of_distance(self, h: Tensor, distance: Tensor, dtype: torch.dtype) -> Tensor:
        """sum_m cos((i - j) theta_m) / r_h; angles in float64, as they grow with the distance."""
        angles = distance[..., None] * self.theta.to(distance.device)
        ratio = 8 * (h + 1) / self.n_heads
        return (angles.cos().sum(-1) / ratio).to(dtype)
