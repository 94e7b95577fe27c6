"""Rotation: inputs and weights turn by a Hadamard transform, which spreads outliers over channels.

    y = (W M^T) (M x),      M = (H / sqrt(n)) D

H Walsh-Hadamard, D random signs of a seed; M is orthogonal, so nothing changes before rounding. A
number of channels that is no power of two turns in blocks of the largest that divides it: 384 in
128s, 1536 in 512s. The input turns in every call, n log n additions for each token; what the paper
folds into neighbouring weights stays online here, so that any model can be treated layer by layer.
"""

from dataclasses import dataclass

from torch import Tensor

from harness.card import Card
from impls.compression._grid import Granularity
from impls.compression._options import WeightAndInputOptions
from impls.compression._rotation import Rotation, random_signs
from impls.compression.interface import LayerStatistics, Parts

CARD = Card(
    cls="HadamardRotation",
    title="Hadamard rotation",
    paper="arXiv:2404.00456",
    year=2024,
    summary="Turns inputs and weights so that no channel lies out, then rounds both to 4 bits.",
    oracle="identity: equal to the layer before anything is rounded",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HadamardRotation(WeightAndInputOptions):
    """Rounding to nearest behind a randomised Hadamard transform."""

    symmetric: bool = True
    granularity: Granularity = "channel"
    activation_bits: int | None = 4
    seed: int = 0  # of the signs, the same in all layers of a width

    def __post_init__(self) -> None:
        WeightAndInputOptions.__post_init__(self)
        if self.is_static:
            raise ValueError(
                "a static range is that of inputs before they turn: leave activation_static out"
            )

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """The rounded weight over turned inputs, the rounding, and the turn."""
        turn = Rotation(random_signs(weight.shape[1], self.seed).to(weight.device))
        return Parts(self.nearest(turn(weight)), self.rounding(statistics), turn)
