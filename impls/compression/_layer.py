"""The layer in the place of an `nn.Linear`: a stored weight, what rounds and maps its input.

    y = weight(activation(input_map(x))) + bias

R output rows, C input columns, x (..., C).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from impls.compression._activation import ActivationRounding
from impls.compression._inputs import MAPS, InputMap
from impls.compression._stored import PackedError, StoredWeight, check_tensors, kind_of, known_kind

FORMAT = "llmatrix compressed linear 1"


class Parts(NamedTuple):
    """What a technique makes of one weight."""

    weight: StoredWeight
    activation: ActivationRounding | None = None
    input_map: InputMap | None = None


class Around(NamedTuple):
    """Scales that neighbours of a layer have taken on, so that it stands for another weight."""

    input: Tensor | None = None  # (C,): it reads x / input
    output: Tensor | None = None  # (R,): it is to give y / output


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

    Attributes:
        around: scales folded into its neighbours, by which alone it can be compared with the layer
            it replaced; not stored: None where it was loaded and there were some.
    """

    def __init__(self, parts: Parts, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight, self.activation, self.input_map = parts
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.around: Around | None = Around()

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
        return self.activation.linear(x, self.weight, bias)

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
            "folded": self.around is None or any(s is not None for s in self.around),
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
                header["activation"], _under("activation", tensors)
            )
            input_map = header["input_map"] and _input_map(header["input_map"], tensors)
            folded = header["folded"]
        except PackedError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PackedError(f"the layer is incomplete or damaged: {error}") from error
        layer = cls(Parts(weight, activation, input_map), tensors.get("bias"))
        layer.around = None if folded else Around()
        return layer


def _input_map(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> InputMap:
    options = dict(header)
    kind = known_kind(MAPS, options.pop("kind"), "input map is called")
    return kind.from_packed(options, _under("input_map", tensors))


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
