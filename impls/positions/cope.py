"""CoPE: a position is a count of the keys in between that matter to the query.

    g_ij = sigmoid(q_i . k_j / sqrt(d)),   p_ij = min(sum_{m=j..i} g_im, p_max)
    s_ij = q_i . k_j / sqrt(d) + q_i . e[p_ij],   e[p] between e[floor p] and e[ceil p]

i, j indices of query and key; only visible keys up to the query are counted. e (p_max + 1, d) of
each layer, shared by its heads. Gate and e as in the listing of the paper's appendix: the product
is scaled in the gate, the position's score is not.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from harness.card import Card
from impls.models.hooks import visible
from impls.positions._relative import for_query_heads
from impls.positions.interface import Frame, LayerShape, PositionEncoding, PositionRecipe

CARD = Card(
    cls="CoPE",
    title="CoPE",
    paper="arXiv:2405.18719",
    year=2024,
    summary="Positions are sums of gates of the query on the keys in between, so content counts.",
    oracle="loop over pairs; gates of 1 give position i - j + 1",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CoPE(PositionRecipe):
    """Contextual position encoding."""

    p_max: int = 64

    injected_at: ClassVar = ("score",)
    depends_on: ClassVar = "content"

    def __post_init__(self) -> None:
        if self.p_max < 1:
            raise ValueError(f"p_max must be at least 1, got {self.p_max}")

    def build(self, shape: LayerShape) -> "CoPEEncoding":
        """An encoding with a table of p_max + 1 rows for each layer."""
        return CoPEEncoding(shape, self.p_max)


class CoPEEncoding(PositionEncoding):
    """One `CoPELayer` for each layer of the model."""

    def __init__(self, shape: LayerShape, p_max: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CoPELayer(shape, p_max) for _ in range(shape.n_layers))

    def at(self, layer: int) -> PositionEncoding:
        """The layer's own table."""
        return self.layers[layer]


class CoPELayer(PositionEncoding):
    """The table of one layer; a position needs all scores of its row, so there is no score_mod."""

    def __init__(self, shape: LayerShape, p_max: int) -> None:
        super().__init__()
        self.e = nn.Parameter(0.02 * torch.randn(p_max + 1, shape.d_head))

    def score_bias(self, q: Tensor, k: Tensor, frame: Frame) -> Tensor:
        """q_i . e[p_ij], (B, H, Tq, Tk)."""
        p = self.positions(q, k, frame)
        below = p.detach().floor().clamp(max=len(self.e) - 2)  # p_max itself: all of the row above
        scores, row = q @ self.e.to(q.dtype).mT, below.long()
        lower, upper = scores.gather(-1, row), scores.gather(-1, row + 1)
        return torch.lerp(lower, upper, (p - below).to(q.dtype))

    def positions(self, q: Tensor, k: Tensor, frame: Frame) -> Tensor:
        """p_ij, (B, H, Tq, Tk), float32 at least; 0 for keys that no count reaches."""
        n_q, n_k = q.shape[2], k.shape[2]
        counted = visible(n_q, n_k, True, frame.offset, frame.keep, q.device)
        product = self.scale(q.shape[-1]) * q @ for_query_heads(k, q.shape[1]).mT
        gates = product.to(torch.promote_types(q.dtype, torch.float32)).sigmoid() * counted
        return gates.flip(-1).cumsum(-1).flip(-1).clamp(max=len(self.e) - 1)
