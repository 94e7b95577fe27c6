"""How a compressed weight is stored: buffers that are counted, and a header about them.

R output rows, C input columns. Every kind of weight is one subclass in a file of its own, named
`_<kind>.py`; its buffers are all it keeps, so `nbytes` is what a file of it holds.
"""

from abc import abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shapes = dict[str, tuple[tuple[int | None, ...], str]]  # shape and dtype of buffers by name

_KINDS: dict[str, type["StoredWeight"]] = {}


class PackedError(ValueError):
    """A packed layer that is cut short, damaged or of something else; the message says where."""


class StoredWeight(nn.Module):
    """A weight (R, C) as it is stored.

    A subclass registers its tensors as buffers and says in `header` what else it takes to build it.
    """

    kind: ClassVar[str]

    def __init_subclass__(cls) -> None:
        """Make the kind known to `unpack`."""
        super().__init_subclass__()
        _KINDS[cls.kind] = cls

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    @abstractmethod
    def dequantize(self) -> Tensor:
        """The weight it stands for, (R, C) float32."""

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The product of x (..., C) and the transposed weight, plus bias (R,); in x's dtype."""
        return F.linear(x, self.dequantize().to(x.dtype), bias)

    def header(self) -> dict[str, Any]:
        """What `from_packed` needs beside the buffers, as JSON."""
        return {"rows": self.rows, "columns": self.columns}

    @classmethod
    @abstractmethod
    def shapes(cls, header: Mapping[str, Any]) -> Shapes:
        """Name, shape and dtype of each buffer of a header; None where a size is free."""

    @classmethod
    @abstractmethod
    def from_packed(cls, header: Mapping[str, Any], buffers: Mapping[str, Tensor]) -> Self:
        """The weight of a header and buffers that fit it."""

    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(buffer.nbytes for buffer in self.buffers())


def check_tensors(shapes: Shapes, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not those of a header.

    Raises:
        PackedError: if one is missing, unknown, or of another shape or dtype.
    """
    if unknown := sorted(tensors.keys() - shapes.keys()):
        raise PackedError(f"the tensors {', '.join(unknown)} are not the header's")
    for name, (shape, dtype) in shapes.items():
        if name not in tensors:
            raise PackedError(f"the tensor {name!r} is missing")
        got = tensors[name]
        fits = len(got.shape) == len(shape) and all(
            want in {None, have} for want, have in zip(shape, got.shape, strict=True)
        )
        if not fits or got.dtype != getattr(torch, dtype):
            raise PackedError(
                f"the tensor {name!r} should be {tuple(shape)} {dtype}, "
                f"got {tuple(got.shape)} {got.dtype}"
            )


def kind_of(name: str) -> type[StoredWeight]:
    """The class of weights stored as `name`.

    Raises:
        PackedError: if there is none.
    """
    return known_kind(_KINDS, name, "weight is stored as")


def known_kind(kinds: Mapping[str, type[Any]], name: str, what: str) -> type[Any]:
    """The class of a kind, from the file `_<kind>.py` if no other file has told of it yet.

    Raises:
        PackedError: if there is none; `what` goes before the name.
    """
    file = Path(__file__).with_name(f"_{name}.py")
    if name not in kinds and name.isidentifier() and file.is_file():
        import_module(f"impls.compression._{name}")
    if name not in kinds:
        raise PackedError(f"no {what} {name!r}: was it written by a later version?")
    return kinds[name]
