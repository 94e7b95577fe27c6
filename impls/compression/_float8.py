"""Numbers as 8-bit floats over a scale: a weight that is stored so, and inputs rounded so.

    s = max |x| / largest,    x^ = s float8(x / s)

`largest` is the largest number of the format: 448 of e4m3 (no infinities), 57344 of e5m2. R output
rows, C input columns, N tokens.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from impls.compression._activation import ActivationRounding
from impls.compression._grid import Grid, check_finite
from impls.compression._stored import Shapes, StoredWeight

Float8 = Literal["e4m3", "e5m2"]
DTYPES: dict[str, torch.dtype] = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


def scale_of(largest: Tensor, format: Float8) -> Tensor:
    """The scale under which a magnitude becomes the format's largest; of 0 it is 1."""
    scale = largest.float() / torch.finfo(DTYPES[format]).max
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def codes_of(x: Tensor, scale: Tensor, format: Float8) -> Tensor:
    """Over its scale and to nearest even; what is too large becomes the largest."""
    most = torch.finfo(DTYPES[format]).max
    return (x.float() / scale).clamp(-most, most).to(DTYPES[format])


class Float8Weight(StoredWeight):
    """8-bit floats with a scale for all or one a row.

    Args:
        codes: (R, C) in a float8 type.
        scales: (1, 1) or (R, 1) float32.
    """

    kind = "float8"

    def __init__(self, codes: Tensor, scales: Tensor) -> None:
        super().__init__(*codes.shape)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    def dequantize(self) -> Tensor:
        """The weight, (R, C) float32."""
        return self.codes.float() * self.scales

    def header(self) -> dict[str, Any]:
        """Type and number of scales beside the shape."""
        dtype = str(self.codes.dtype).removeprefix("torch.")
        return {**super().header(), "dtype": dtype, "scales": len(self.scales)}

    @classmethod
    def shapes(cls, header: Mapping[str, Any]) -> Shapes:
        """Codes and scales."""
        return {
            "codes": ((header["rows"], header["columns"]), header["dtype"]),
            "scales": ((header["scales"], 1), "float32"),
        }

    @classmethod
    def from_packed(cls, header: Mapping[str, Any], buffers: Mapping[str, Tensor]) -> Self:
        """The weight of a header and buffers."""
        return cls(**buffers)


class Float8Rounding(ActivationRounding):
    """Rounds the input of a layer to 8-bit floats.

    Args:
        format: which.
        grid: symmetric, of granularity `tensor` or `token`; only its range is read.
        low, high: the range found by calibration, scalars; None: the live tensor's own.
    """

    kind = "float8"

    def __init__(
        self, format: Float8, grid: Grid, low: Tensor | None = None, high: Tensor | None = None
    ) -> None:
        super().__init__(grid, low, high)
        self.format: Float8 = format

    def encoded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The input (N, C) as 8-bit floats, and their scales, (N, 1) or (1, 1)."""
        check_finite(x, "a tensor to be rounded")
        if self.bounds is not None:
            largest = self.bounds.abs().amax().view(1, 1)
        elif self.grid.granularity == "token":
            largest = x.abs().amax(1, keepdim=True)
        else:
            largest = x.abs().amax().view(1, 1)
        scale = scale_of(largest, self.format)
        return codes_of(x, scale, self.format), scale

    def forward(self, x: Tensor) -> Tensor:
        """The input (..., C), rounded."""
        codes, scale = self.encoded(x.reshape(-1, x.shape[-1]))
        return (codes.float() * scale).to(x.dtype).view(x.shape)

    def linear(self, x: Tensor, weight: StoredWeight, bias: Tensor | None) -> Tensor:
        """The product of x (..., C), rounded, and the transposed weight, plus bias; in x's dtype.

        Scales stand before the sum of products of 8-bit floats, which are exact in float32.
        """
        if not isinstance(weight, Float8Weight):
            return super().linear(x, weight, bias)
        codes, scale = self.encoded(x.reshape(-1, x.shape[-1]))
        y = F.linear(codes.float(), weight.codes.float()) * (scale * weight.scales.view(1, -1))
        y = y.to(x.dtype) if bias is None else y.to(x.dtype) + bias
        return y.view(*x.shape[:-1], -1)

    def header(self) -> dict[str, Any]:
        """The format beside the range."""
        return {**super().header(), "format": self.format}

    @classmethod
    def _of(cls, grid: Grid, header: Mapping[str, Any], buffers: Mapping[str, Tensor]) -> Self:
        return cls(header["format"], grid, *buffers.get("bounds", (None, None)))
