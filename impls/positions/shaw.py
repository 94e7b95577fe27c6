"""Relative position representations: learned vectors of the clipped distance join keys and values.

    e_ij = q_i . (k_j + a^K_{c(j-i)}) / sqrt(d)
    z_i = sum_j softmax_j(e_ij) (v_j + a^V_{c(j-i)}),   c(n) = clip(n, -k, k)

i, j positions; a^K, a^V (2k + 1, d) of each layer, the same for all its heads; k the clip distance.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from harness.card import Card
from impls.positions._relative import gathered
from impls.positions.interface import Frame, LayerShape, PositionEncoding, PositionRecipe

CARD = Card(
    cls="Shaw",
    title="Shaw relative positions",
    paper="arXiv:1803.02155",
    year=2018,
    summary="Learned vectors of the clipped distance are added to keys and to values.",
    oracle="brute-force loop over queries and keys; distances beyond the clip are alike",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shaw(PositionRecipe):
    """Relative position representations on keys and values."""

    clip: int = 16

    injected_at: ClassVar = ("score", "value")
    depends_on: ClassVar = "relative"

    def __post_init__(self) -> None:
        if self.clip < 1:
            raise ValueError(f"clip must be at least 1, got {self.clip}")

    def build(self, shape: LayerShape) -> "ShawEncoding":
        """An encoding with two tables of 2 clip + 1 rows for each layer."""
        return ShawEncoding(shape, self.clip)


class ShawEncoding(PositionEncoding):
    """One `ShawLayer` for each layer of the model."""

    def __init__(self, shape: LayerShape, clip: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ShawLayer(shape, clip) for _ in range(shape.n_layers))

    def at(self, layer: int) -> PositionEncoding:
        """The layer's own tables."""
        return self.layers[layer]


class ShawLayer(PositionEncoding):
    """The tables of one layer."""

    def __init__(self, shape: LayerShape, clip: int) -> None:
        super().__init__()
        self.clip = clip
        self.a_k = nn.Parameter(0.02 * torch.randn(2 * clip + 1, shape.d_head))
        self.a_v = nn.Parameter(0.02 * torch.randn(2 * clip + 1, shape.d_head))

    def score_bias(self, q: Tensor, k: Tensor, frame: Frame) -> Tensor:
        """q_i . a^K_{c(j-i)}, scaled, (B, H, Tq, Tk)."""
        scores = self.scale(q.shape[-1]) * q @ self.a_k.to(q.dtype).mT
        return gathered(scores, self._rows(frame))

    def value_bias(self, weights: Tensor, frame: Frame) -> Tensor:
        """The weighted sum of a^V: weights (B, H, Tq, Tk) are summed by distance first."""
        index = self._rows(frame)[:, None].expand_as(weights)
        by_distance = weights.new_zeros(*weights.shape[:-1], len(self.a_v))
        return by_distance.scatter_add(-1, index, weights) @ self.a_v.to(weights.dtype)

    def _rows(self, frame: Frame) -> Tensor:
        """Row of each distance, clip(j - i) + k, (B or 1, Tq, Tk)."""
        return self.clip + (-frame.distance).clamp(-self.clip, self.clip)
