"""T5's relative bias: a learned number for each head and bucket of distances.

    s_ij = q_i . k_j + b_{h, bucket(i - j)}

i, j positions; half of the buckets are exact distances, the others logarithmic (`_buckets.py`). One
table b for all layers. T5 does not divide by sqrt(d), its initial weights are that much smaller;
`scaled` divides, for models whose weights are not.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from harness.card import Card
from impls.positions._bias import DistanceBias
from impls.positions._buckets import bucket
from impls.positions.interface import LayerShape, PositionRecipe

CARD = Card(
    cls="T5Bias",
    title="T5 relative bias",
    paper="arXiv:1910.10683",
    year=2019,
    summary="A learned bias for each head and bucket of distances, shared by all layers.",
    oracle="transformers' T5Attention.compute_bias",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class T5Bias(PositionRecipe):
    """Relative position bias in buckets."""

    n_buckets: int = 32
    max_distance: int = 128
    scaled: bool = False

    injected_at: ClassVar = ("score",)
    depends_on: ClassVar = "relative"

    def __post_init__(self) -> None:
        if self.n_buckets < 4 or self.n_buckets % 4:
            raise ValueError(f"n_buckets must be a multiple of 4, got {self.n_buckets}")
        if self.max_distance <= self.n_buckets // 2:
            raise ValueError(
                f"max_distance must be above the {self.n_buckets // 2} exact buckets, "
                f"got {self.max_distance}"
            )

    def build(self, shape: LayerShape) -> "T5BiasEncoding":
        """A table of (n_buckets, H); later keys have buckets unless the shape is causal."""
        return T5BiasEncoding(shape, self)


class T5BiasEncoding(DistanceBias):
    """The table, shared by all layers."""

    def __init__(self, shape: LayerShape, recipe: T5Bias) -> None:
        super().__init__(shape)
        self.recipe, self.bidirectional = recipe, not shape.causal
        self.table = nn.Parameter(torch.empty(recipe.n_buckets, shape.n_heads))
        nn.init.normal_(self.table, std=shape.d_model**-0.5)  # as T5's

    def of_distance(self, h: Tensor, distance: Tensor, dtype: torch.dtype) -> Tensor:
        """b_{h, bucket(distance)}."""
        n_buckets, max_distance = self.recipe.n_buckets, self.recipe.max_distance
        index = bucket(
            distance,
            n_buckets=n_buckets,
            max_distance=max_distance,
            bidirectional=self.bidirectional,
        )
        return self.table.to(dtype)[index, h]

    def scale(self, d_head: int) -> float:
        """1, or d^(-1/2) if scaled."""
        return d_head**-0.5 if self.recipe.scaled else 1.0
