"""The layer in the place of an `nn.Linear`: a stored weight, what rounds and maps its input.

    y = weight(activation(input_map(x))) + bias

Where the weight and its input are integers with one scale a row, the product is one of integers:

    Y = s_x s_w (Q_x Q_w^T - z_x 1 rowsum(Q_w)^T - rowsum(Q_x) z_w^T + C z_x z_w^T)

R output rows, C input columns, x (..., C).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from impls.compression._activation import ActivationRounding
from impls.compression._grid import Affine
from impls.compression._inputs import MAPS, InputMap
from impls.compression._integer import IntegerWeight
from impls.compression._stored import PackedError, StoredWeight, check_tensors, kind_of

FORMAT = "llmatrix compressed linear 1"


class Parts(NamedTuple):
    """What a technique makes of one weight."""

    weight: StoredWeight
    activation: ActivationRounding | None = None
    input_map: InputMap | None = None


@dataclass(frozen=True)
class Packed:
    """A layer as a file holds it: a header for JSON, and tensors."""

    header: dict[str, Any]
    tensors: dict[str, Tensor]


class CompressedLinear(nn.Module):
    """A linear layer with a compressed weight.

    Args:
        parts: weight, rounding and map of the input.
        bias: (R,), or None.
    """

    def __init__(self, parts: Parts, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight, self.activation, self.input_map = parts
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    @property
    def in_features(self) -> int:
        """C."""
        return self.weight.columns

    @property
    def out_features(self) -> int:
        """R."""
        return self.weight.rows

    def forward(self, x: Tensor) -> Tensor:
        """From x (..., C) to (..., R), in x's dtype."""
        if self.input_map is not None:
            x = self.input_map(x)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if self.activation is None or not x.numel():  # no tokens have no range
            return self.weight.linear(x, bias)
        if not has_integer_product(self.weight):
            return self.weight.linear(self.activation(x), bias)
        codes, affine = self.activation.quantize(x.reshape(-1, x.shape[-1]))
        y = integer_linear(codes, affine, self.weight).to(x.dtype)
        y = y if bias is None else y + bias
        return y.view(*x.shape[:-1], -1)

    def dequantize(self) -> Tensor:
        """The weight it stands for over plain inputs, (R, C) float32."""
        weight = self.weight.dequantize()
        return weight if self.input_map is None else self.input_map.undone(weight)

    def nbytes(self) -> int:
        """Bytes of all that is stored: the weight with scales and indices, input maps, the bias."""
        return sum(buffer.nbytes for buffer in self.buffers())

    def bits_per_parameter(self) -> float:
        """Stored bits for each weight of the layer it replaced, the bias left out."""
        bias = 0 if self.bias is None else self.bias.nbytes
        return 8 * (self.nbytes() - bias) / (self.in_features * self.out_features)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves to a device reach what is stored, casts do not: `half()` must not round scales."""

        def moved(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        return super()._apply(moved, recurse)

    def pack(self) -> Packed:
        """The layer as a header and tensors."""
        parts = {"activation": self.activation, "input_map": self.input_map}
        header: dict[str, Any] = {
            "format": FORMAT,
            "weight": {"kind": self.weight.kind, **self.weight.header()},
            **{name: part and part.header() for name, part in parts.items()},
        }
        if self.input_map is not None:
            header["input_map"]["kind"] = self.input_map.kind
        tensors = dict(self.named_buffers())
        header["beside"] = {
            name: [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
            for name, tensor in tensors.items()
            if not name.startswith("weight.")
        }
        return Packed(header, tensors)

    @classmethod
    def unpack(cls, packed: Packed) -> "CompressedLinear":
        """The layer that `pack` was given.

        Raises:
            PackedError: if the header is of another format, or tensors are missing or do not fit.
        """
        header, tensors = packed.header, packed.tensors
        if header.get("format") != FORMAT:
            raise PackedError(
                f"the layer says it is {header.get('format')!r}, this version reads {FORMAT!r}"
            )
        try:
            kind = kind_of(header["weight"]["kind"])
            shapes = {f"weight.{n}": told for n, told in kind.shapes(header["weight"]).items()}
            check_tensors({**shapes, **header["beside"]}, tensors)
            weight = kind.from_packed(header["weight"], _under("weight", tensors))
            activation = header["activation"] and ActivationRounding.from_packed(
                header["activation"], tensors.get("activation.bounds")
            )
            input_map = header["input_map"] and _input_map(header["input_map"], tensors)
        except PackedError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PackedError(f"the layer is incomplete or damaged: {error}") from error
        return cls(Parts(weight, activation, input_map), tensors.get("bias"))


def has_integer_product(weight: StoredWeight) -> bool:
    """Whether a weight's scales factor out of a sum over input channels."""
    return isinstance(weight, IntegerWeight) and weight.scales.shape[1] == 1


def integer_linear(codes: Tensor, x: Affine, weight: IntegerWeight) -> Tensor:
    """The product of rounded inputs and weights, summed as 32-bit integers; (N, R) float32.

    Args:
        codes: of the input, (N, C) integers.
        x: what they stand for.
        weight: with one scale for all or one a row.
    """
    w = weight.affine()
    q_w = weight.integers()
    # Codes from 0 to 255 become -128 to 127, and zero points with them.
    shift_x, shift_w = (128 if affine.low == 0 else 0 for affine in (x, w))
    left, right = (codes.int() - shift_x).to(torch.int8), (q_w - shift_w).to(torch.int8)
    z_x, z_w = (x.zero.int() - shift_x).view(-1, 1), (w.zero.int() - shift_w).view(1, -1)
    sums = integer_matmul(left, right)
    sums = (
        sums - z_x * right.sum(1, dtype=torch.int32) - left.sum(1, dtype=torch.int32)[:, None] * z_w
    )
    sums = sums + codes.shape[1] * z_x * z_w
    return sums.float() * (x.scale.view(-1, 1) * w.scale.view(1, -1))


def integer_matmul(left: Tensor, right: Tensor) -> Tensor:
    """The product of left (N, C) and right (R, C) transposed, both int8; (N, R) int32."""
    if left.shape[1] == 1:  # torch's own errs for one channel through a transposed view
        return left.int() * right.int().T
    return torch._int_mm(left.contiguous(), right.T)


def _input_map(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> InputMap:
    options = dict(header)
    kind = options.pop("kind")
    if kind not in MAPS:
        raise PackedError(f"no input map is called {kind!r}: {', '.join(sorted(MAPS))}")
    return MAPS[kind].from_packed(options, _under("input_map", tensors))


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
