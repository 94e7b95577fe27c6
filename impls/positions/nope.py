"""NoPE: no position encoding; the causal mask alone tells order.

A causal model can still count: a token that attends evenly sees the share of any earlier one fall
with its own position.
"""

from dataclasses import dataclass
from typing import ClassVar

from harness.card import Card
from impls.positions.interface import LayerShape, PositionEncoding, PositionRecipe

CARD = Card(
    cls="NoPE",
    title="NoPE",
    paper="arXiv:2305.19466",
    year=2023,
    summary="No position encoding at all; order comes from the causal mask.",
    oracle="identity: without a mask, permuting tokens permutes outputs and changes no bit",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class NoPE(PositionRecipe):
    """No position encoding."""

    injected_at: ClassVar = ("nowhere",)
    depends_on: ClassVar = "none"

    def build(self, shape: LayerShape) -> PositionEncoding:
        """An encoding whose hooks change nothing."""
        return PositionEncoding()
