"""DeBERTa's disentangled attention: content and distance meet in both directions.

    s_ij = (q_i . k_j + q_i . K^r_{delta(i,j)} + k_j . Q^r_{delta(j,i)}) / sqrt(3d)
    K^r = P W_{k,r},  Q^r = P W_{q,r},  delta(i,j) = clip(i - j + k, 0, 2k - 1)

i, j positions; P (2k, D) one table of distances for all layers, W of each layer; k the reach.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from harness.card import Card
from impls.positions._relative import for_query_heads, gathered, projected
from impls.positions.interface import Frame, LayerShape, PositionEncoding, PositionRecipe

CARD = Card(
    cls="DeBERTa",
    title="DeBERTa disentangled attention",
    paper="arXiv:2006.03654",
    year=2020,
    summary="Content-to-position and position-to-content scores from a table of distances.",
    oracle="transformers' DeBERTa and DeBERTa-v2 attention; loop over pairs",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeBERTa(PositionRecipe):
    """Disentangled relative positions."""

    max_distance: int = 512  # k
    n_buckets: int | None = None  # v2: 256 of each sign, half of them exact, half logarithmic
    released_p2c: bool = False  # k_j . Q^r_{delta(i,j)}, as the authors' code and transformers have

    injected_at: ClassVar = ("score",)
    depends_on: ClassVar = "relative"

    def __post_init__(self) -> None:
        if self.max_distance < 2:
            raise ValueError(f"max_distance must be at least 2, got {self.max_distance}")
        if self.n_buckets is not None and not 4 <= self.n_buckets < 2 * self.max_distance - 2:
            raise ValueError(
                f"n_buckets must be at least 4 and half of it below max_distance - 1 = "
                f"{self.max_distance - 1}, got {self.n_buckets}"
            )

    def build(self, shape: LayerShape) -> "DeBERTaEncoding":
        """An encoding with one table and two projections for each layer."""
        return DeBERTaEncoding(shape, self)


class DeBERTaEncoding(PositionEncoding):
    """The table of distances, and one `DeBERTaLayer` for each layer of the model."""

    def __init__(self, shape: LayerShape, recipe: DeBERTa) -> None:
        super().__init__()
        self.table = nn.Embedding(2 * (recipe.n_buckets or recipe.max_distance), shape.d_model)
        nn.init.normal_(self.table.weight, std=0.02)
        self.layers = nn.ModuleList(
            DeBERTaLayer(shape, recipe, self.table) for _ in range(shape.n_layers)
        )

    def at(self, layer: int) -> PositionEncoding:
        """The layer's own projections of the table."""
        return self.layers[layer]


class DeBERTaLayer(PositionEncoding):
    """The scores of one layer."""

    def __init__(self, shape: LayerShape, recipe: DeBERTa, table: nn.Embedding) -> None:
        super().__init__()
        self.shape, self.recipe = shape, recipe
        self.k_proj = nn.Linear(shape.d_model, shape.n_heads * shape.d_head, bias=False)
        self.q_proj = nn.Linear(shape.d_model, shape.n_heads * shape.d_head, bias=False)
        for projection in (self.k_proj, self.q_proj):
            nn.init.normal_(projection.weight, std=0.02)
        self._table = (table,)  # a tuple hides it: registered once, by the whole encoding

    def scale(self, d_head: int) -> float:
        """1 / sqrt(3d): three products are summed."""
        return (3 * d_head) ** -0.5

    def score_bias(self, q: Tensor, k: Tensor, frame: Frame) -> Tensor:
        """Content to position and position to content, scaled, (B, H, Tq, Tk)."""
        there = self._reached(frame.distance)  # i - j
        back = there if self.recipe.released_p2c else -there  # j - i
        table = self._table[0].weight
        span = len(table) // 2
        reach = min(int(there.abs().max()), span)
        rows = table[span - reach : span + reach + 1]  # no others are asked for
        k_rel, q_rel = (
            projected(rows, projection, self.shape.n_heads).to(q.dtype)
            for projection in (self.k_proj, self.q_proj)
        )
        delta_ij, delta_ji = ((n + reach).clamp(0, len(rows) - 1) for n in (there, back))
        c2p = gathered(q @ k_rel.mT, delta_ij)
        p2c = gathered(for_query_heads(k, q.shape[1]) @ q_rel.mT, delta_ji.mT).mT
        return self.scale(q.shape[-1]) * (c2p + p2c)

    def _reached(self, distance: Tensor) -> Tensor:
        """Distances, by v2's buckets where the recipe has them."""
        if self.recipe.n_buckets is None:
            return distance
        return log_bucket(distance, self.recipe.n_buckets, self.recipe.max_distance)


def log_bucket(distance: Tensor, n_buckets: int, max_distance: int) -> Tensor:
    """Signed buckets of v2: up to n_buckets / 2 the distance itself, logarithmic beyond; int64."""
    exact = n_buckets // 2
    far = distance.abs().clamp(min=exact)
    growth = torch.log(far / exact) / math.log((max_distance - 1) / exact)
    beyond = exact + torch.ceil(growth * (exact - 1)).long()
    return torch.where(distance.abs() <= exact, distance, beyond * distance.sign())
