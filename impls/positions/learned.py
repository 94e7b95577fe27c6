"""Learned positions: a learned vector of each position is added to the token embeddings.

    x_p = e_p + W_p

p position below max_len; e token embeddings; W (max_len, D). There is nothing beyond max_len.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from harness.card import Card
from impls.positions.interface import LayerShape, PositionEncoding, PositionRecipe, check_range

CARD = Card(
    cls="Learned",
    title="Learned absolute",
    paper="arXiv:1705.03122",
    year=2017,
    summary="A learned vector of each position is added to the token embeddings.",
    oracle="transformers' GPT-2 position table",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Learned(PositionRecipe):
    """Learned absolute position embedding."""

    std: float = 0.02  # of the initial vectors; GPT-2's and BERT's

    injected_at: ClassVar = ("embedding",)
    depends_on: ClassVar = "absolute"

    def __post_init__(self) -> None:
        if self.std < 0:
            raise ValueError(f"std must be at least 0, got {self.std}")

    def build(self, shape: LayerShape) -> "LearnedEncoding":
        """A table of `shape.max_len` positions."""
        return LearnedEncoding(shape, self.std)


class LearnedEncoding(PositionEncoding):
    """The table."""

    def __init__(self, shape: LayerShape, std: float) -> None:
        super().__init__()
        self.max_len = shape.max_len
        self.table = nn.Parameter(std * torch.randn(shape.max_len, shape.d_model))

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        """Embeddings plus W[pos], (B, T, D).

        Raises:
            ValueError: for a position that the table does not hold.
        """
        check_range(pos, len(self.table), "Learned")
        return x + self.table[pos].to(x.dtype)
