"""Round to nearest: every weight to the nearest number of a uniform grid, by itself.

    q = clamp(round(w / s) + z, 0, 2^b - 1),      w^ = s (q - z)

w weight, s scale, z zero point, b bits; and likewise what the layer reads, where asked for. The
taxonomy's axes are its options: symmetric or not, static or dynamic, weight or activation, per
tensor, token, channel or group (arXiv:1712.05877, arXiv:2103.13630). With `range="mse"` the ranges
are those of least squared error.
"""

from dataclasses import dataclass

from torch import Tensor

from harness.card import Card
from impls.compression._options import WeightAndInputOptions
from impls.compression.interface import LayerStatistics, Parts

CARD = Card(
    cls="RTN",
    title="Round to nearest",
    paper="arXiv:2103.13630",
    year=2021,
    summary="Rounds each weight to the nearest level of its block's grid, and inputs if asked.",
    oracle="identity: torch's fake-quantize operators, bit for bit",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RTN(WeightAndInputOptions):
    """Rounding to nearest."""

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """The nearest codes, and the rounding of the input."""
        return Parts(self.nearest(weight), self.rounding(statistics))
