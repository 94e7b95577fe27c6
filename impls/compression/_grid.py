"""Uniform grids: what numbers a tensor is rounded to, along the axes of the usual taxonomy.

    q = clamp(round(x / s) + z, q_min, q_max),      x^ = s (q - z)

symmetric   s = max|x| / (2^(b-1) - 1),      z = 0,                q from -(2^(b-1) - 1)
asymmetric  s = (max x - min x) / (2^b - 1), z = round(-min x / s), q from 0; the range includes 0

One s and z serve a block of the tensor: all of it, a row, a run of a row, a column. R rows, C
columns, b bits; blocks stand in an a x g raster, each of R/a x C/g numbers. Rounding is to even, as
in torch's fake-quantize operators, which give equal bits. A scale is rounded to the type it is
stored in before anything is rounded by it.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from impls.compression._affine import Affine, in_blocks

Granularity = Literal["tensor", "channel", "group", "input_channel", "token"]
Range = Literal["minmax", "percentile", "mse"]
ScaleDtype = Literal["float16", "bfloat16", "float32"]

SHRINKS = 40  # ranges tried for the least squared error, from all down to 1 / SHRINKS of it


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """A uniform grid and how its range is found.

    Attributes:
        bits: 2 to 8.
        symmetric: zero is a level in the middle; else the range is used whole.
        granularity: what one scale serves: `tensor`, `channel` (a row of a weight), `group` (so
            many neighbours of a row), `input_channel` (a column), `token` (a row of activations).
        group: numbers in a group; read where granularity is `group`.
        range: all of it (`minmax`), without the outermost `1 - percentile` (`percentile`), or the
            part with the least squared error (`mse`).
        percentile: share of the numbers inside the range, in percent.
        scale_dtype: the type scales are stored in.
    """

    bits: int = 4
    symmetric: bool = False
    granularity: Granularity = "group"
    group: int = 64
    range: Range = "minmax"
    percentile: float = 99.9
    scale_dtype: ScaleDtype = "float16"

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"bits must be from 2 to 8, got {self.bits}")
        if self.group < 2:
            raise ValueError(f"group must be at least 2, got {self.group}")
        if not 50 < self.percentile <= 100:
            raise ValueError(f"percentile must be above 50 and at most 100, got {self.percentile}")
        kinds = {"granularity": Granularity, "range": Range, "scale_dtype": ScaleDtype}
        for name, kind in kinds.items():
            if getattr(self, name) not in get_args(kind):
                known = ", ".join(get_args(kind))
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")

    @property
    def low(self) -> int:
        """The smallest code."""
        return -self.high if self.symmetric else 0

    @property
    def high(self) -> int:
        """The largest code."""
        return 2 ** (self.bits - 1) - 1 if self.symmetric else 2**self.bits - 1

    def raster(self, rows: int, columns: int) -> tuple[int, int]:
        """How many blocks a matrix has down and across.

        Raises:
            ValueError: if groups do not divide its rows.
        """
        if self.granularity == "group" and columns % self.group:
            raise ValueError(
                f"groups of {self.group} do not divide {columns} inputs: "
                f"choose a divisor, or granularity 'channel'"
            )
        return {
            "tensor": (1, 1),
            "channel": (rows, 1),
            "token": (rows, 1),
            "input_channel": (1, columns),
            "group": (rows, columns // self.group),
        }[self.granularity]

    def fit(self, x: Tensor) -> Affine:
        """Scales and zero points for x (R, C), its range found as `range` says.

        Raises:
            ValueError: if a number is not finite, groups do not fit, or a scale is too large for
                its type.
        """
        check_finite(x, "a tensor to be rounded")
        blocks = in_blocks(x.float(), *self.raster(*x.shape)).transpose(1, 2).flatten(2)
        if self.range == "percentile":
            low, high = percentile_range(blocks, self.percentile, symmetric=self.symmetric)
        else:
            low, high = blocks.amin(-1), blocks.amax(-1)
        if self.range == "mse":
            low, high = self._least_error(blocks, low, high)
        return self.between(low, high)

    def between(self, low: Tensor, high: Tensor) -> Affine:
        """Scales and zero points of given ranges, (a, g) each; a range of no width gets scale 1.

        Raises:
            ValueError: if a scale is too large for its type.
        """
        low, high = low.clamp(max=0).float(), high.clamp(min=0).float()
        width = torch.maximum(-low, high) / self.high if self.symmetric else high - low
        scale = width if self.symmetric else width / self.high
        dtype = getattr(torch, self.scale_dtype)
        scale = scale.to(dtype).float()
        if not torch.isfinite(scale).all():
            raise ValueError(
                f"a scale of {float(width.max()):.3g} does not fit {self.scale_dtype}: "
                "set scale_dtype to 'float32'"
            )
        usable = scale > torch.finfo(torch.float32).tiny  # 1 / scale is finite
        scale = torch.where(usable, scale, torch.ones_like(scale))
        zero = torch.zeros_like(scale) if self.symmetric else torch.round(-low / scale)
        return Affine(scale, zero.clamp(self.low, self.high), self.low, self.high)

    def _least_error(self, blocks: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The share of each range under which rounding errs least in square."""
        best = torch.full_like(low, torch.inf)
        best_low, best_high = low, high
        for step in range(SHRINKS):
            share = 1 - step / SHRINKS
            grid = self.between(low * share, high * share)
            scale, zero = grid.scale[..., None], grid.zero[..., None]
            codes = (torch.round(blocks * (1 / scale)) + zero).clamp(self.low, self.high)
            error = ((codes - zero) * scale - blocks).square().sum(-1)
            better = error < best
            best = torch.where(better, error, best)
            best_low = torch.where(better, low * share, best_low)
            best_high = torch.where(better, high * share, best_high)
        return best_low, best_high


def percentile_range(x: Tensor, percentile: float, *, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Bounds of the last axis that hold `percentile` percent of the numbers."""
    ordered = x.abs().sort(-1).values if symmetric else x.sort(-1).values
    last = x.shape[-1] - 1
    outside = 1 - percentile / 100
    if symmetric:
        bound = ordered[..., round(last * (1 - outside))]
        return -bound, bound
    return ordered[..., round(last * outside / 2)], ordered[..., round(last * (1 - outside / 2))]


def check_finite(x: Tensor, what: str) -> None:
    """Refuse numbers that are not finite.

    Raises:
        ValueError: with how many and the first place.
    """
    bad = ~torch.isfinite(x)
    if bad.any():
        place = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"{what} has {int(bad.sum())} numbers that are not finite, the first at {place}: "
            "repair the model or the data it was calibrated with"
        )
