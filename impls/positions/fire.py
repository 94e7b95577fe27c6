"""FIRE: a small network maps the distance, as a share of what the query can see, to a bias.

    s_ij = q_i . k_j / sqrt(d) + f_h(psi(i - j) / psi(max(L, i))),   psi(x) = log(1 + c x)

i, j positions; f a network of one hidden layer with an output for each head h; c and the threshold
L learned. The argument lies in [0, 1] at any length (progressive interpolation), so f never sees
what it was not trained on. Later keys, where a query sees them, count by |i - j| of max(L, i, j).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.card import Card
from impls.positions._bias import PointwiseBias, at_least_float32
from impls.positions.interface import Frame, LayerShape, PositionEncoding, PositionRecipe

CARD = Card(
    cls="FIRE",
    title="FIRE",
    paper="arXiv:2310.04418",
    year=2023,
    summary="A network maps log distance over log position to a bias for each head.",
    oracle="loop over pairs; T5, ALiBi and KERPLE biases are fitted by it",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FIRE(PositionRecipe):
    """Functional interpolation for relative position encodings."""

    hidden: int = 32
    c: float = 0.1
    threshold: float = 0.25  # L at first, a share of max_len: the paper's 512 of 2048
    shared: bool = False  # one network for all layers: FIRE-S

    injected_at: ClassVar = ("score",)
    depends_on: ClassVar = "absolute"  # beyond L the same distance is another share of the position

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {self.hidden}")
        if self.c <= 0:
            raise ValueError(f"c must be above 0, got {self.c}")
        if self.threshold <= 0:
            raise ValueError(f"threshold must be above 0, got {self.threshold}")

    def build(self, shape: LayerShape) -> "FIREEncoding":
        """A network for each layer, or one for all."""
        return FIREEncoding(shape, self)


class FIREEncoding(PositionEncoding):
    """One `FIRELayer` for each layer of the model, or one for all."""

    def __init__(self, shape: LayerShape, recipe: FIRE) -> None:
        super().__init__()
        n = 1 if recipe.shared else shape.n_layers
        self.layers = nn.ModuleList(FIRELayer(shape, recipe) for _ in range(n))

    def at(self, layer: int) -> PositionEncoding:
        """The layer's own network, or the one of all."""
        return self.layers[layer % len(self.layers)]


class FIRELayer(PointwiseBias):
    """The network of one layer."""

    def __init__(self, shape: LayerShape, recipe: FIRE) -> None:
        super().__init__(shape)
        self.first = nn.Linear(1, recipe.hidden)
        self.second = nn.Linear(recipe.hidden, shape.n_heads)
        self.c = nn.Parameter(torch.tensor(recipe.c))
        self.initial_threshold = max(1.0, recipe.threshold * shape.max_len)
        self.threshold = nn.Parameter(torch.tensor(1.0))  # as a multiple of the initial one

    def argument(self, q_pos: Tensor, k_pos: Tensor, dtype: torch.dtype) -> Tensor:
        """psi(|i - j|) / psi(max(L, i, j)) of positions that broadcast, in [0, 1]."""
        c, L = self.c.to(dtype).abs(), self.initial_threshold * self.threshold.to(dtype).abs()
        distance = (q_pos - k_pos).abs().to(dtype)
        whole = torch.maximum(torch.maximum(q_pos, k_pos).to(dtype), L)
        return torch.log1p(c * distance) / torch.log1p(c * whole).clamp(min=1e-6)

    def score_bias(self, q: Tensor, k: Tensor, frame: Frame) -> Tensor:
        """The bias of all heads at once, (B or 1, H, Tq, Tk) float32 or float64."""
        dtype = at_least_float32(q)
        x = self.argument(frame.q_pos[:, :, None], frame.k_pos[:, None, :], dtype)
        weight, bias = self.second.weight.to(dtype), self.second.bias.to(dtype)
        return F.linear(self._hidden(x), weight, bias).movedim(-1, 1)

    def formula(self, h: Tensor, q_pos: Tensor, k_pos: Tensor, dtype: torch.dtype) -> Tensor:
        """f_h at one score."""
        hidden = self._hidden(self.argument(q_pos, k_pos, dtype))
        weight, bias = self.second.weight.to(dtype)[h], self.second.bias.to(dtype)[h]
        return (hidden * weight).sum(-1) + bias

    def _hidden(self, x: Tensor) -> Tensor:
        weight, bias = self.first.weight.to(x.dtype)[:, 0], self.first.bias.to(x.dtype)
        return F.relu(x[..., None] * weight + bias)
