"""A weight as 4-bit codes of a table of 16 numbers, packed, over a scale for each group of a row.

    w = s t[q],    q from 0 to 15

R output rows, C input columns, g groups a row.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor

from impls.compression._packing import pack, packed_width, unpack
from impls.compression._stored import PackedError, Shapes, StoredWeight

Table = Literal["nf4", "e2m1"]
BITS = 4

TABLES: dict[str, tuple[float, ...]] = {
    # Quantiles of a normal distribution, 0 among them; arXiv:2305.14314, appendix E.
    "nf4": (
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ),
    # Sign, two bits of exponent, one of mantissa; the code is the number's own bits.
    "e2m1": tuple(sign * x for sign in (1, -1) for x in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)),
}


def table(name: Table, device: torch.device | str | None = None) -> Tensor:
    """The numbers of a table by code, (16,) float32."""
    return torch.tensor(TABLES[name], device=device)


def nearest(x: Tensor, numbers: Tensor) -> Tensor:
    """The place of the nearest of ascending numbers, int32; of two equally near, the first."""
    middles = (numbers[:-1] + numbers[1:]) / 2
    return torch.bucketize(x, middles, out_int32=True)


def grouped(weight: Tensor, group: int) -> Tensor:
    """A weight (R, C) as (R, C / group, group).

    Raises:
        ValueError: if groups do not divide its rows.
    """
    if weight.shape[1] % group:
        raise ValueError(
            f"groups of {group} do not divide {weight.shape[1]} inputs: choose a divisor"
        )
    return weight.unflatten(1, (-1, group))


class CodebookWeight(StoredWeight):
    """Codes of a table with a scale for each group.

    Args:
        codes: (R, C) integers from 0 to 15.
        table: which numbers they stand for.
        scales: (R, g), in the type they are stored in.
    """

    kind = "codebook"

    def __init__(self, codes: Tensor, table: Table, scales: Tensor) -> None:
        super().__init__(*codes.shape)
        self.table: Table = table
        self.register_buffer("codes", pack(codes, BITS))
        self.register_buffer("scales", scales)

    def scale(self) -> Tensor:
        """The scale of each group, (R, g) float32."""
        return self.scales.float()

    def dequantize(self) -> Tensor:
        """The weight s t[q], (R, C) float32."""
        codes = unpack(self.codes, BITS, self.columns)
        numbers = table(self.table, codes.device)[codes.int()]
        scale = self.scale()
        return (numbers.view(*scale.shape, -1) * scale[..., None]).view(codes.shape)

    def header(self) -> dict[str, Any]:
        """Table, groups and type of the scales beside the shape."""
        return {
            **super().header(),
            "table": self.table,
            "groups": self.scales.shape[1],
            "scale_dtype": str(self.scales.dtype).removeprefix("torch."),
        }

    @classmethod
    def shapes(cls, header: Mapping[str, Any]) -> Shapes:
        """Codes and scales."""
        rows = header["rows"]
        return {
            "codes": ((rows, packed_width(header["columns"], BITS)), "uint8"),
            "scales": ((rows, header["groups"]), header["scale_dtype"]),
        }

    @classmethod
    def from_packed(cls, header: Mapping[str, Any], buffers: Mapping[str, Tensor]) -> Self:
        """The weight of a header and buffers."""
        weight = cls.__new__(cls)
        StoredWeight.__init__(weight, header["rows"], header["columns"])
        if header["table"] not in TABLES:
            raise PackedError(f"no table is called {header['table']!r}: {', '.join(TABLES)}")
        weight.table = header["table"]
        for name, buffer in buffers.items():
            weight.register_buffer(name, buffer)
        return weight
