"""FP8: weights, and inputs where asked for, as 8-bit floating-point numbers over a scale.

    s = max |w| / largest,    w^ = s float8(w / s)

w weight, s scale, `largest` 448 of e4m3 (four bits of exponent, three of mantissa, no infinities)
or 57344 of e5m2. Steps grow with the number, so that errors are relative, at most 1/16 or 1/8, and
outliers cost their neighbours nothing until those fall below the least normal number
(arXiv:2209.05433).
"""

from dataclasses import dataclass

from torch import Tensor

from harness.card import Card
from impls.compression._activation import check_activation_grid
from impls.compression._float8 import (
    DTYPES,
    Float8,
    Float8Rounding,
    Float8Weight,
    codes_of,
    scale_of,
)
from impls.compression._grid import Granularity, Grid
from impls.compression.interface import LayerCompression, LayerStatistics, Need, Parts

CARD = Card(
    cls="FP8",
    title="FP8, e4m3 and e5m2",
    paper="arXiv:2209.05433",
    year=2022,
    summary="Rounds weights, and inputs if asked, to 8-bit floating-point numbers over a scale.",
    oracle="identity: torch's float8 types and torchao's float8 scales and codes, bit for bit",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FP8(LayerCompression):
    """8-bit floating-point weights, and inputs where `activation_format` is set."""

    format: Float8 = "e4m3"
    granularity: Granularity = "channel"
    activation_format: Float8 | None = None  # None: inputs stay as they are
    activation_granularity: Granularity = "token"
    activation_static: bool = False  # the range is found by calibration, not from the live tensor

    def __post_init__(self) -> None:
        known = {"format": (*DTYPES,), "activation_format": (*DTYPES, None)}
        for name, formats in known.items():
            if getattr(self, name) not in formats:
                told = ", ".join(DTYPES)
                raise ValueError(f"{name} must be one of {told}, got {getattr(self, name)!r}")
        if self.granularity not in {"tensor", "channel"}:
            raise ValueError(
                f"weights in FP8 cannot have scales by {self.granularity!r}: one serves all "
                "('tensor') or a row ('channel')"
            )
        if self.activation_format is not None:
            check_activation_grid(self._input_grid, static=self.activation_static)

    @property
    def needs(self) -> frozenset[Need]:
        """The range of the inputs, where it is static."""
        static = self.activation_format is not None and self.activation_static
        return frozenset({"range"}) if static else frozenset()

    @property
    def _input_grid(self) -> Grid:
        return Grid(bits=8, symmetric=True, granularity=self.activation_granularity)

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """The nearest numbers of the format, and the rounding of the input."""
        sizes = weight.abs()
        by_row = self.granularity == "channel"
        largest = sizes.amax(1, keepdim=True) if by_row else sizes.amax().view(1, 1)
        scale = scale_of(largest, self.format)
        stored = Float8Weight(codes_of(weight, scale, self.format), scale)
        return Parts(stored, self._rounding(statistics))

    def _rounding(self, statistics: LayerStatistics) -> Float8Rounding | None:
        if self.activation_format is None:
            return None
        grid = self._input_grid
        bounds = statistics.range.bounds(grid) if self.activation_static else ()
        return Float8Rounding(self.activation_format, grid, *bounds)
