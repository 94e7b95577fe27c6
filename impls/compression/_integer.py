"""A weight as codes of a uniform grid, packed, with their scales and zero points."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from impls.compression._grid import Affine
from impls.compression._packing import pack, packed_width, unpack
from impls.compression._stored import Shapes, StoredWeight
from impls.compression.kernels import weight_only

MOST_TOKENS = 512  # in a call; with more, dequantizing once and torch's product take less time


class IntegerWeight(StoredWeight):
    """Codes of b bits with scales, and zero points where the grid has them; all packed.

        w = s (q - z),    q from 0 to 2^b - 1; a symmetric grid's codes are stored plus 2^(b-1)

    Args:
        codes: (R, C) integers from `affine.low` to `affine.high`.
        affine: scales and zero points, (a, g).
        bits: of a code and of a zero point.
        scale_dtype: type the scales are stored in, which represents them.
    """

    kind = "integer"

    def __init__(
        self, codes: Tensor, affine: Affine, *, bits: int, scale_dtype: str = "float16"
    ) -> None:
        super().__init__(*codes.shape)
        self.bits, self.symmetric = bits, affine.low < 0
        self.register_buffer("codes", pack(codes.round().int() + self._middle, bits))
        self.register_buffer("scales", affine.scale.to(getattr(torch, scale_dtype)))
        zeros = None if self.symmetric else pack(affine.zero.int().view(1, -1), bits)
        self.register_buffer("zeros", zeros)
        self._forget()

    @property
    def _middle(self) -> int:
        return 2 ** (self.bits - 1) if self.symmetric else 0

    def affine(self) -> Affine:
        """Its scales and zero points."""
        scale = self.scales.float()
        if self.zeros is None:
            high = 2 ** (self.bits - 1) - 1
            return Affine(scale, torch.zeros_like(scale), -high, high)
        zero = unpack(self.zeros, self.bits, scale.numel()).float()
        return Affine(scale, zero.view_as(scale), 0, 2**self.bits - 1)

    def integers(self) -> Tensor:
        """Its codes as the grid counts them, (R, C) int32."""
        return unpack(self.codes, self.bits, self.columns).int() - self._middle

    def signed(self) -> tuple[Tensor, Tensor]:
        """Its codes as int8 (R, C), those from 0 less 128, and their sums (R,) int32; kept."""
        if self._signed is None:
            codes = (self.integers() - (0 if self.symmetric else 128)).to(torch.int8)
            self._signed = codes, codes.sum(1, dtype=torch.int32)
        return self._signed

    def dequantize(self) -> Tensor:
        """The weight s (q - z), (R, C) float32."""
        return self.affine().values(self.integers())

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """By the packed kernel where one fits, else by the dequantized weight."""
        if not self._suits_kernel(x):
            return super().linear(x, bias)
        if self._prepared is None:
            if not self._has_kernel():
                return super().linear(x, bias)
            self._prepared = self._prepare()
        return weight_only.linear(x, self._prepared, bias)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._forget()

    def _forget(self) -> None:
        """Drop what was made of the codes to multiply by them."""
        self._prepared: weight_only.Prepared | None = None
        self._signed: tuple[Tensor, Tensor] | None = None

    def _suits_kernel(self, x: Tensor) -> bool:
        return (
            x.device.type == "cpu"
            and x.dtype in {torch.float32, torch.bfloat16}
            and x.numel() <= MOST_TOKENS * self.columns
            and not (torch.is_grad_enabled() and x.requires_grad)
        )

    def _has_kernel(self) -> bool:
        a, g = self.scales.shape
        fits = weight_only.why_not(self.rows, self.columns, g, self.bits) is None
        return a in {1, self.rows} and fits and weight_only.available()

    def _prepare(self) -> weight_only.Prepared:
        """The codes in the kernel's order."""
        affine = self.affine()
        size = (self.rows, affine.scale.shape[1])
        return weight_only.prepare(
            unpack(self.codes, self.bits, self.columns),
            affine.scale.expand(size).contiguous(),
            (affine.zero + self._middle).expand(size).contiguous(),
            bits=self.bits,
        )

    def header(self) -> dict[str, Any]:
        """The grid beside the shape."""
        return {
            **super().header(),
            "bits": self.bits,
            "symmetric": self.symmetric,
            "raster": list(self.scales.shape),
            "scale_dtype": str(self.scales.dtype).removeprefix("torch."),
        }

    @classmethod
    def shapes(cls, header: Mapping[str, Any]) -> Shapes:
        """Codes, scales and, of an asymmetric grid, zero points."""
        bits, (a, g) = header["bits"], header["raster"]
        shapes: Shapes = {
            "codes": ((header["rows"], packed_width(header["columns"], bits)), "uint8"),
            "scales": ((a, g), header["scale_dtype"]),
        }
        if not header["symmetric"]:
            shapes["zeros"] = ((1, packed_width(a * g, bits)), "uint8")
        return shapes

    @classmethod
    def from_packed(cls, header: Mapping[str, Any], buffers: Mapping[str, Tensor]) -> Self:
        """The weight of a header and buffers."""
        weight = cls.__new__(cls)
        StoredWeight.__init__(weight, header["rows"], header["columns"])
        weight.bits, weight.symmetric = header["bits"], header["symmetric"]
        for name in ("codes", "scales", "zeros"):
            weight.register_buffer(name, buffers.get(name))
        weight._forget()
        return weight
