"""Position interpolation: positions are squeezed into the trained range.

    m -> m / s,   that is   theta'_i = theta_i / s

m a position, theta_i the inverse frequencies, s the target length over the trained length.
"""

from dataclasses import dataclass

from torch import Tensor

from harness.card import Card
from impls.context._frequencies import check_factor
from impls.context.interface import FrequencyRecipe, RopeShape, scale_of

CARD = Card(
    cls="PositionInterpolation",
    title="Position interpolation",
    paper="arXiv:2306.15595",
    year=2023,
    summary="Divides all positions by one factor, so that none lies beyond the trained range.",
    oracle="transformers' rope_type linear; the trained rotation at positions m / s",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PositionInterpolation(FrequencyRecipe):
    """Linear interpolation of positions."""

    factor: float | None = None  # s; None: target length / trained length

    def __post_init__(self) -> None:
        check_factor(self.factor)

    def frequencies(self, rope: RopeShape, *, target_len: int, length: int) -> tuple[Tensor, float]:
        """All frequencies divided by s."""
        return rope.theta / scale_of(self.factor, rope.train_len, target_len), 1.0
