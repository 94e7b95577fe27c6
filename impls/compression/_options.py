"""Options that quantization techniques share: the weight's grid, and the input's."""

from dataclasses import dataclass

from torch import Tensor

from impls.compression._activation import NO_FACTOR, ActivationRounding, check_activation_grid
from impls.compression._grid import Granularity, Grid, Range, ScaleDtype
from impls.compression._integer import IntegerWeight
from impls.compression.interface import LayerCompression, LayerStatistics, Need


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightOptions(LayerCompression):
    """The grid of the weights; fields as of `Grid`."""

    bits: int = 4
    symmetric: bool = False
    granularity: Granularity = "group"
    group: int = 64
    range: Range = "minmax"
    percentile: float = 99.9
    scale_dtype: ScaleDtype = "float16"

    def __post_init__(self) -> None:
        if self.granularity == "token":
            raise ValueError(
                "a weight has no tokens: choose 'tensor', 'channel', 'group' or 'input_channel'"
            )
        self.grid  # noqa: B018 - checks its numbers

    @property
    def grid(self) -> Grid:
        """The weights' grid."""
        return Grid(
            bits=self.bits,
            symmetric=self.symmetric,
            granularity=self.granularity,
            group=self.group,
            range=self.range,
            percentile=self.percentile,
            scale_dtype=self.scale_dtype,
        )

    def nearest(self, weight: Tensor) -> IntegerWeight:
        """The weight (R, C), each number rounded by itself."""
        affine = self.grid.fit(weight)
        codes = affine.codes(weight)
        return IntegerWeight(codes, affine, bits=self.bits, scale_dtype=self.scale_dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightAndInputOptions(WeightOptions):
    """The grid of the weights, and that of what the layer reads."""

    activation_bits: int | None = None  # None: inputs stay as they are
    activation_symmetric: bool = True
    activation_granularity: Granularity = "token"
    activation_static: bool = False  # the range is found by calibration, not from the live tensor
    activation_range: Range = "minmax"
    activation_percentile: float = 99.9

    def __post_init__(self) -> None:
        WeightOptions.__post_init__(self)
        if self.activation_bits is None:
            return
        check_activation_grid(self.activation_grid, static=self.activation_static)
        if self.granularity == "input_channel":
            raise ValueError(
                f"weights of granularity 'input_channel' beside rounded inputs: "
                f"{NO_FACTOR} of the weights, or leave activation_bits out"
            )

    @property
    def needs(self) -> frozenset[Need]:
        """The range of the inputs, where it is static."""
        return frozenset({"range"} if self.is_static else ())

    @property
    def is_static(self) -> bool:
        """Whether inputs are rounded in a range that calibration finds."""
        return self.activation_bits is not None and self.activation_static

    @property
    def activation_grid(self) -> Grid:
        """The inputs' grid; scales are computed in float32."""
        return Grid(
            bits=self.activation_bits or 8,
            symmetric=self.activation_symmetric,
            granularity=self.activation_granularity,
            range=self.activation_range,
            percentile=self.activation_percentile,
            scale_dtype="float32",
        )

    def rounding(self, statistics: LayerStatistics) -> ActivationRounding | None:
        """What rounds the layer's input; None: nothing does."""
        if self.activation_bits is None:
            return None
        grid = self.activation_grid
        if not self.activation_static:
            return ActivationRounding(grid)
        return ActivationRounding(grid, *statistics.range.bounds(grid))
