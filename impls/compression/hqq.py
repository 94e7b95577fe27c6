"""HQQ: the zero points of groups are moved until few weights err much, without any data.

    argmin_z |W - s (q - z)|_p^p,  q = round(W / s + z),  in two halves that have closed forms:
    E <- sign(R) max(0, |R| - |R|^(p-1) / beta),    R = W - s (q - z)
    z <- mean(q - (W - E) / s),    beta <- kappa beta

W weight of a group, s scale, z zero point, q codes, E what is let go as outliers. p < 1, so that
few large errors are borne rather than many small ones (https://mobiusml.github.io/hqq_blog,
half-quadratic quantization). It ends when the mean of |R| grows; as in the authors' package, whose
own loop leaves beta as it is, the last zero points are kept then. Scales are rounded to the type
they are stored in beforehand.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.card import Card
from impls.compression._codebook import grouped
from impls.compression._grid import Affine, Grid, ScaleDtype
from impls.compression._real_zero import RealZeroWeight
from impls.compression.interface import LayerCompression, LayerStatistics, Parts

CARD = Card(
    cls="HQQ",
    title="HQQ, half-quadratic quantization",
    paper="https://mobiusml.github.io/hqq_blog",
    year=2023,
    summary="Optimises the zero points of groups for few large errors, without calibration.",
    oracle="identity: codes, scales and zero points of the hqq package",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HQQ(LayerCompression):
    """Half-quadratic quantization."""

    bits: int = 4
    group: int = 64
    norm: float = 0.7  # p
    beta: float = 10.0
    kappa: float = 1.01
    steps: int = 20  # at most
    scale_dtype: ScaleDtype = "float16"  # of zero points, too

    def __post_init__(self) -> None:
        Grid(bits=self.bits, group=self.group, scale_dtype=self.scale_dtype)  # checks them
        if not 0 < self.norm <= 1:
            raise ValueError(f"norm must be above 0 and at most 1, got {self.norm}")
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, got {self.beta}")
        if not self.kappa >= 1:
            raise ValueError(f"kappa must be at least 1, got {self.kappa}")
        if self.steps < 0:
            raise ValueError(f"steps must be at least 0, got {self.steps}")

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """Codes with optimised zero points; inputs stay as they are."""
        groups = grouped(weight, self.group)
        scale, zero = self._range(groups)
        zero = self._stored(self._optimised(groups, scale, zero), "zero point")
        codes = self._codes(groups, scale, zero).flatten(1)
        affine = Affine(scale[..., 0], zero[..., 0], 0, self._top)
        stored = RealZeroWeight(codes, affine, bits=self.bits, dtype=self.scale_dtype)
        return Parts(stored)

    @property
    def _top(self) -> int:
        return 2**self.bits - 1

    def _codes(self, groups: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        return torch.round(groups * (1 / scale) + zero).clamp(0, self._top)

    def _range(self, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point that use the range whole; a range of no width gets scale 1."""
        low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        least = torch.finfo(getattr(torch, self.scale_dtype)).tiny  # smaller ones lose digits
        scale = ((high - low) / self._top).clamp(min=least)
        scale = self._stored(torch.where(high > low, scale, 1.0), "scale")
        return scale, -low * (1 / scale)

    def _optimised(self, groups: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """The zero points after the steps."""
        beta, best = self.beta, torch.inf
        for _ in range(self.steps):
            codes = self._codes(groups, scale, zero)
            rest = groups - (codes - zero) * scale
            kept = groups - shrunk(rest, beta, self.norm)
            zero = (codes - kept * (1 / scale)).mean(-1, keepdim=True)
            error = float(rest.abs().mean())
            if error >= best:
                break
            best, beta = error, beta * self.kappa
        return zero

    def _stored(self, x: Tensor, what: str) -> Tensor:
        """Numbers as their type holds them.

        Raises:
            ValueError: if one is too large for it.
        """
        rounded = x.to(getattr(torch, self.scale_dtype)).float()
        if not torch.isfinite(rounded).all():
            raise ValueError(
                f"a {what} of {float(x.abs().max()):.3g} does not fit {self.scale_dtype}: "
                "set scale_dtype to 'float32'"
            )
        return rounded


def shrunk(x: Tensor, beta: float, p: float) -> Tensor:
    """The generalised soft threshold sign(x) max(0, |x| - |x|^(p-1) / beta)."""
    size = x.abs()
    return x.sign() * (size - size.pow(p - 1) / beta).clamp(min=0)
