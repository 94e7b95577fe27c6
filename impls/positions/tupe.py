"""TUPE: positions have their own product of queries and keys, apart from the words'.

    s_ij = (x_i W_Q) . (x_j W_K) / sqrt(2d) + reset(t_ij)
    t_ij = (p_i U_Q) . (p_j U_K) / sqrt(2d) + b_{j-i}
    reset(t_ij) = theta_1 where i = 0, theta_2 where j = 0 < i, else t_ij   (untied [CLS])

i, j positions; p a learned, normalised table; U_Q, U_K, b and theta for each head, all shared by
the layers, so that t is computed once for all of them. b in T5's buckets (TUPE-R); without: TUPE-A.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from harness.card import Card
from impls.positions._buckets import bucket
from impls.positions._relative import projected
from impls.positions.interface import (
    Frame,
    LayerShape,
    PositionEncoding,
    PositionRecipe,
    ScoreMod,
    check_range,
)

CARD = Card(
    cls="TUPE",
    title="TUPE",
    paper="arXiv:2006.15595",
    year=2020,
    summary="A product of learned positions is added to the product of words, once for all layers.",
    oracle="loop over pairs; with U = 0 it is T5's bias at scale 1/sqrt(2d)",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TUPE(PositionRecipe):
    """Untied positional encoding."""

    relative: bool = True
    n_buckets: int = 32
    max_distance: int = 128
    untied_cls: bool | None = None  # None: only where attention is bidirectional

    injected_at: ClassVar = ("score",)
    depends_on: ClassVar = "absolute"

    def __post_init__(self) -> None:
        if self.n_buckets < 4:
            raise ValueError(f"n_buckets must be at least 4, got {self.n_buckets}")
        if self.max_distance <= self.n_buckets // 2:
            raise ValueError(
                f"max_distance must be above half of n_buckets, {self.n_buckets // 2}, "
                f"got {self.max_distance}"
            )

    def build(self, shape: LayerShape) -> "TUPEEncoding":
        """An encoding with a table of `shape.max_len` positions."""
        return TUPEEncoding(shape, self)


class TUPEEncoding(PositionEncoding):
    """One position score, shared by all layers."""

    def __init__(self, shape: LayerShape, recipe: TUPE) -> None:
        super().__init__()
        self.shape, self.recipe, self.max_len = shape, recipe, shape.max_len
        width = shape.n_heads * shape.d_head
        self.table = nn.Embedding(shape.max_len, shape.d_model)
        self.norm = nn.LayerNorm(shape.d_model)
        self.q_proj = nn.Linear(shape.d_model, width, bias=False)
        self.k_proj = nn.Linear(shape.d_model, width, bias=False)
        self.b = nn.Embedding(recipe.n_buckets, shape.n_heads) if recipe.relative else None
        for module in (self.table, self.q_proj, self.k_proj, self.b):
            if module is not None:
                nn.init.normal_(module.weight, std=0.02)
        untied = not shape.causal if recipe.untied_cls is None else recipe.untied_cls
        self.theta = nn.Parameter(torch.zeros(2, shape.n_heads, 1, 1)) if untied else None
        self._layers_left = 0  # of a pass through the model; 0 outside of one
        self._shared: tuple[Tensor, Tensor, Tensor] | None = None  # q_pos, k_pos, their score

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        """Nothing is added; a pass begins, in which the first layer's score serves all."""
        self._layers_left, self._shared = self.shape.n_layers, None
        return x

    def score_bias(self, q: Tensor, k: Tensor, frame: Frame) -> Tensor:
        """What is added to the words' score, (B or 1, H, Tq, Tk)."""
        if not self._layers_left:  # called by itself, outside of a model's pass
            return self.score(frame.q_pos, frame.k_pos).to(q.dtype)
        score = self._score_of_pass(frame.q_pos, frame.k_pos)
        self._layers_left -= 1
        if not self._layers_left:
            self._shared = None  # the next pass has a graph of its own
        return score.to(q.dtype)

    def _score_of_pass(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        if self._shared is not None:
            q_shared, k_shared, score = self._shared
            if torch.equal(q_pos, q_shared) and torch.equal(k_pos, k_shared):
                return score
        score = self.score(q_pos, k_pos)
        self._shared = q_pos, k_pos, score
        return score

    def score_mod(self) -> ScoreMod:
        """The score of positions below max_len, from one table (H, max_len, max_len)."""
        pos = torch.arange(self.shape.max_len, device=self.table.weight.device)[None]
        table = self.score(pos, pos)[0]
        return lambda score, b, h, q_pos, k_pos: score + table[h, q_pos, k_pos]

    def score(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """reset(t_ij) of positions (B or 1, Tq) and (B or 1, Tk), (B or 1, H, Tq, Tk).

        Raises:
            ValueError: for a position that the table does not hold.
        """
        for pos in (q_pos, k_pos):
            check_range(pos, self.max_len, "TUPE")
        heads, d_head = self.shape.n_heads, self.shape.d_head
        p_q = projected(self.norm(self.table(q_pos)), self.q_proj, heads)
        p_k = projected(self.norm(self.table(k_pos)), self.k_proj, heads)
        t = self.scale(d_head) * p_q @ p_k.mT
        if self.b is not None:
            t = t + self.b(self._bucket(q_pos, k_pos)).permute(0, 3, 1, 2)
        if self.theta is None:
            return t
        t = torch.where(k_pos[:, None, None, :] == 0, self.theta[1], t)
        return torch.where(q_pos[:, None, :, None] == 0, self.theta[0], t)

    def _bucket(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return bucket(
            q_pos[:, :, None] - k_pos[:, None, :],
            n_buckets=self.recipe.n_buckets,
            max_distance=self.recipe.max_distance,
            bidirectional=not self.shape.causal,
        )

    def scale(self, d_head: int) -> float:
        """1 / sqrt(2d): two products are summed."""
        return (2 * d_head) ** -0.5
