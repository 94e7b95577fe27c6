"""Rounding of what enters a layer: per tensor or per token, by the live tensor or by calibration.

X (N, C) tokens of one call, N all leading axes together.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from impls.compression._grid import Affine, Grid
from impls.compression._product import has_integer_product, integer_linear
from impls.compression._stored import StoredWeight, known_kind

NO_FACTOR = (
    "scales of input channels do not factor out of an integer product, "
    "Σ_c s_c q_xc q_wc: choose 'tensor' or 'token'"
)

_KINDS: dict[str, type["ActivationRounding"]] = {}


class ActivationRounding(nn.Module):
    """Rounds the input of a layer.

    Args:
        grid: of granularity `tensor` or `token`.
        low, high: the range found by calibration, scalars; None: the live tensor's own.

    Raises:
        ValueError: for a granularity that an integer product cannot have, or a static scale for
            each token, which nobody can know beforehand.
    """

    kind: ClassVar[str] = "all"

    def __init_subclass__(cls) -> None:
        """Make the kind known to `from_packed`."""
        super().__init_subclass__()
        _KINDS[cls.kind] = cls

    def __init__(self, grid: Grid, low: Tensor | None = None, high: Tensor | None = None) -> None:
        super().__init__()
        check_activation_grid(grid, static=low is not None)
        self.grid = grid
        bounds = None if low is None or high is None else torch.stack((low, high)).float().view(2)
        self.register_buffer("bounds", bounds)

    def affine(self, x: Tensor) -> Affine:
        """Scales and zero points for x (N, C)."""
        if self.bounds is None:
            return self.grid.fit(x)
        low, high = self.bounds
        return self.grid.between(low.view(1, 1), high.view(1, 1))

    def quantize(self, x: Tensor) -> tuple[Tensor, Affine]:
        """Codes of x (N, C), float32 integers, and what they stand for."""
        affine = self.affine(x)
        return affine.codes(x), affine

    def forward(self, x: Tensor) -> Tensor:
        """The input (..., C), rounded."""
        flat = x.reshape(-1, x.shape[-1])
        return self.affine(flat).rounded(flat).to(x.dtype).view(x.shape)

    def linear(self, x: Tensor, weight: StoredWeight, bias: Tensor | None) -> Tensor:
        """The product of x (..., C), rounded, and the transposed weight, plus bias; in x's dtype.

        It is one of integers where the weight has one scale for all or one a row.
        """
        if not has_integer_product(weight):
            return weight.linear(self(x), bias)
        codes, affine = self.quantize(x.reshape(-1, x.shape[-1]))
        y = integer_linear(codes, affine, weight).to(x.dtype)
        y = y if bias is None else y + bias
        return y.view(*x.shape[:-1], -1)

    def header(self) -> dict[str, Any]:
        """What `from_packed` needs beside the buffers, as JSON."""
        return {"kind": self.kind, **{name: getattr(self.grid, name) for name in Grid.__slots__}}

    @staticmethod
    def from_packed(
        header: Mapping[str, Any], buffers: Mapping[str, Tensor]
    ) -> "ActivationRounding":
        """The rounding of a header and buffers, of the kind that the header tells."""
        options = {name: header[name] for name in Grid.__slots__}
        kind = known_kind(_KINDS, header["kind"], "input is rounded as")
        return kind._of(Grid(**options), header, buffers)

    @classmethod
    def _of(cls, grid: Grid, header: Mapping[str, Any], buffers: Mapping[str, Tensor]) -> Self:
        return cls(grid, *buffers.get("bounds", (None, None)))


_KINDS[ActivationRounding.kind] = ActivationRounding


def check_activation_grid(grid: Grid, *, static: bool) -> None:
    """Refuse grids that activations cannot have.

    Raises:
        ValueError: with the reason.
    """
    if grid.granularity in {"channel", "input_channel", "group"}:
        raise ValueError(f"activations cannot be rounded by {grid.granularity!r}: {NO_FACTOR}")
    if static and grid.granularity == "token":
        raise ValueError(
            "a static range cannot be a token's own: choose granularity 'tensor', or dynamic"
        )
