"""A weight in small groups whose scales and zero points are themselves codes of a few bits.

    w = s (q - z),    s = s_0 + d_s q_s,    z = z_0 + d_z q_z

q is of b bits; q_s and q_z are of a group, so many neighbours of a row, and z is no integer; s_0,
d_s, z_0 and d_z, float16, are of a run of rows of one column of groups. R rows, C columns, g groups
in a row, n runs of rows, the last of which may be shorter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from impls.compression._packing import pack, packed_width, unpack
from impls.compression._stored import Shapes, StoredWeight


@dataclass(frozen=True, slots=True)
class Rounded:
    """Numbers, one a group, as codes between the ends of their run of rows.

    Attributes:
        codes: (R, g) float32 integers.
        ends: smallest number and distance of two codes, (2, n, g) float32 that float16 represents.
        run: rows in a run.
    """

    codes: Tensor
    ends: Tensor
    run: int

    def values(self) -> Tensor:
        """What the codes stand for, (R, g) float32."""
        low, step = self.ends.repeat_interleave(self.run, dim=1)[:, : len(self.codes)]
        return low + step * self.codes


def rounded(x: Tensor, *, bits: int, run: int) -> Rounded:
    """Numbers x (R, g) at `bits` bits each.

    Raises:
        ValueError: if one is too large for float16.
    """
    n = -(-len(x) // run)
    rows = torch.arange(n * run, device=x.device).clamp(max=len(x) - 1)
    runs = x[rows].view(n, run, -1)
    low, high = runs.amin(1), runs.amax(1)
    low = low.half().float()
    step = ((high - low).clamp(min=0) / (2**bits - 1)).half().float()
    if not torch.isfinite(low + step).all():
        raise ValueError(
            f"a scale of {float(high.max()):.3g} does not fit float16: divide the weights"
        )
    ends = torch.stack((low, step))
    low, step = ends.repeat_interleave(run, dim=1)[:, : len(x)]
    codes = torch.where(step > 0, (x - low) / step, 0.0)
    return Rounded(codes.round().clamp(0, 2**bits - 1), ends, run)


@dataclass(frozen=True, slots=True)
class Levels:
    """The levels s (q - z) of a weight's groups.

    Attributes:
        scale: s, (R, g) float32, at least 0.
        zero: z, (R, g) float32, no integers.
        bits: of q.
    """

    scale: Tensor
    zero: Tensor
    bits: int

    def codes(self, x: Tensor) -> Tensor:
        """The nearest codes of x (R, C), float32 integers; 0 where the scale is."""
        scale, zero = self._over(x)
        codes = torch.where(scale > 0, x / scale + zero, 0.0)
        return codes.round_().clamp_(0, 2**self.bits - 1)

    def values(self, codes: Tensor) -> Tensor:
        """What codes (R, C) stand for, float32."""
        scale, zero = self._over(codes)
        return (codes - zero) * scale

    def _over(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scales and zero points that broadcast over x."""
        width = x.shape[1] // self.scale.shape[1]
        if self.scale.shape[1] == 1 or width == 1:
            return self.scale, self.zero
        return self.scale.repeat_interleave(width, 1), self.zero.repeat_interleave(width, 1)


class BilevelWeight(StoredWeight):
    """Codes of weights, of their groups' scales and of zero points, all packed, and their ends.

    Args:
        codes: (R, C) integers of `bits` bits.
        scales: of the groups.
        zeros: of the groups.
        bits: of a weight, a scale and a zero point.
    """

    kind = "bilevel"

    def __init__(
        self, codes: Tensor, scales: Rounded, zeros: Rounded, *, bits: tuple[int, int, int]
    ) -> None:
        super().__init__(*codes.shape)
        self.bits, self.run, self.groups = bits, scales.run, scales.codes.shape[1]
        self.register_buffer("codes", pack(codes, bits[0]))
        self.register_buffer("scales", pack(scales.codes.reshape(1, -1), bits[1]))
        self.register_buffer("zeros", pack(zeros.codes.reshape(1, -1), bits[2]))
        self.register_buffer("scale_ends", scales.ends.half())
        self.register_buffer("zero_ends", zeros.ends.half())

    def levels(self) -> Levels:
        """Its levels."""
        scale, zero = (
            Rounded(self._groups(codes, bits), ends.float(), self.run).values()
            for codes, bits, ends in (
                (self.scales, self.bits[1], self.scale_ends),
                (self.zeros, self.bits[2], self.zero_ends),
            )
        )
        return Levels(scale, zero, self.bits[0])

    def dequantize(self) -> Tensor:
        """The weight s (q - z), (R, C) float32."""
        return self.levels().values(unpack(self.codes, self.bits[0], self.columns).float())

    def _groups(self, codes: Tensor, bits: int) -> Tensor:
        """Codes of groups, (R, g) float32."""
        n_codes = self.rows * self.groups
        return unpack(codes, bits, n_codes).float().view(self.rows, self.groups)

    def header(self) -> dict[str, Any]:
        """Bits, groups in a row and rows in a run, beside the shape."""
        return {**super().header(), "bits": list(self.bits), "groups": self.groups, "run": self.run}

    @classmethod
    def shapes(cls, header: Mapping[str, Any]) -> Shapes:
        """Codes of three kinds, ends of two."""
        rows, groups, bits = header["rows"], header["groups"], header["bits"]
        ends = ((2, -(-rows // header["run"]), groups), "float16")
        return {
            "codes": ((rows, packed_width(header["columns"], bits[0])), "uint8"),
            "scales": ((1, packed_width(rows * groups, bits[1])), "uint8"),
            "zeros": ((1, packed_width(rows * groups, bits[2])), "uint8"),
            "scale_ends": ends,
            "zero_ends": ends,
        }

    @classmethod
    def from_packed(cls, header: Mapping[str, Any], buffers: Mapping[str, Tensor]) -> Self:
        """The weight of a header and buffers."""
        weight = cls.__new__(cls)
        StoredWeight.__init__(weight, header["rows"], header["columns"])
        weight.bits, weight.run = tuple(header["bits"]), header["run"]
        weight.groups = header["groups"]
        for name in cls.shapes(header):
            weight.register_buffer(name, buffers[name])
        return weight
