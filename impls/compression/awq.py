"""AWQ: weights of channels with large inputs are scaled up before rounding, so that they err less.

    s = s_X^alpha / sqrt(max s min s),      alpha* = argmin sum |X W^T - (X / s) Q(W diag(s))^T|^2
    s_X mean |x_j| of a channel;      alpha in {0, 1/20, .., 19/20}, 0 is rounding to nearest

The variant of the authors' code divides by s_W^(1 - alpha), s_W the mean of |w_j| over its group's
largest. One s serves all layers that read an input (q, k, v together) and folds into the norm or
layer before, or stays as an input map. Errors are exact over all calibration tokens: they are read
from H = 2 X^T X. Then each group's range is shrunk where that errs less (`clip`); by the authors'
sample of tokens it may come out worse for the layer, here it is kept only if the layer gains.
"""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from harness.card import Card
from impls.compression._grid import Affine, check_finite
from impls.compression._hosts import linears_of
from impls.compression._inputs import ChannelScale
from impls.compression._integer import IntegerWeight
from impls.compression._options import WeightOptions
from impls.compression._sites import Moves, sites_of
from impls.compression.interface import (
    Calibration,
    CompressedLinear,
    LayerStatistics,
    Need,
    Parts,
    calibrated,
    replace_each,
)

CARD = Card(
    cls="AWQ",
    title="Activation-aware weight quantization",
    paper="arXiv:2306.00978",
    year=2023,
    summary="Scales salient weight channels up before rounding and their inputs down.",
    oracle="torchao's scale and choice for a layer; without a scale, rounding to nearest",
    exact=False,
)
SHRINKS = tuple(1 - step / 20 for step in range(10))  # shares of a group's range, authors' code


@dataclass(frozen=True, kw_only=True, slots=True)
class AWQ(WeightOptions):
    """A search for the scales of input channels, and for the ranges of groups."""

    scale_by: Literal["inputs", "inputs_and_weights"] = "inputs"
    tries: int = 20  # alphas, from 0 in even steps to below 1
    clip: bool = True

    def __post_init__(self) -> None:
        WeightOptions.__post_init__(self)
        if self.tries < 1:
            raise ValueError(f"tries must be at least 1, got {self.tries}")

    @property
    def needs(self) -> frozenset[Need]:
        """The mean input of each channel, and the Hessian, which tells every error."""
        return frozenset({"absmean", "hessian"})

    def compressed(
        self, model: nn.Module, calibration: Calibration | None = None, *, layers: str = "*"
    ) -> nn.Module:
        """A copy with scales moved and weights rounded; one pass over the model calibrates it."""
        small = copy.deepcopy(model).eval()
        chosen = linears_of(small, layers)
        known = calibrated(self, calibration).collect(small, list(chosen), self.needs)
        moves = Moves()
        for site in reversed(sites_of(small, chosen)):  # judged before their rows are scaled too
            first = next(iter(site.linears))
            weights = [linear.weight.detach() for linear in site.linears.values()]
            moves.move(small, site, self.scale(weights, known[first]))

        def make(name: str, linear: nn.Linear) -> CompressedLinear:
            scale = moves.scale_of(name)
            stored = self.rounded(linear.weight.detach(), known[name].hessian, scale)
            return moves.layer(name, Parts(stored), linear.bias)

        replace_each(small, chosen, make)
        return small

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """One layer by itself, its scale in an input map."""
        scale = self.scale([weight], statistics)
        stored = self.rounded(weight * scale, statistics.hessian, scale)
        return Parts(stored, input_map=ChannelScale(scale))

    def scale(self, weights: list[Tensor], statistics: LayerStatistics) -> Tensor:
        """The best scale (C,) float32 of an input that layers of weights (R, C) read."""
        for weight in weights:
            check_finite(weight, "a weight")
        best, least = None, torch.inf
        for scale in self._scales(weights, statistics.absmean):
            wrong = sum(
                error(w - self.grid.fit(w * scale).rounded(w * scale) / scale, statistics.hessian)
                for w in (weight.float() for weight in weights)
            )
            if wrong < least:
                best, least = scale, wrong
        return best

    def rounded(self, weight: Tensor, hessian: Tensor, scale: Tensor) -> IntegerWeight:
        """A scaled weight (R, C), its groups' ranges shrunk where the layer gains by it."""
        weight, hessian = weight.float(), hessian / torch.outer(scale, scale).double()
        affine = self.grid.fit(weight)
        if self.clip:
            clipped = self._clipped(weight, hessian)
            wrong = [error(weight - a.rounded(weight), hessian) for a in (affine, clipped)]
            affine = clipped if wrong[1] < wrong[0] else affine
        codes = affine.codes(weight)
        return IntegerWeight(codes, affine, bits=self.bits, scale_dtype=self.scale_dtype)

    def _scales(self, weights: list[Tensor], absmean: Tensor) -> list[Tensor]:
        """What is tried; all ones first, so that nothing worse is ever chosen."""
        means = absmean.clamp(min=1e-4)
        found = [torch.ones_like(means)]
        both = self.scale_by == "inputs_and_weights"
        over = self._weight_means(weights) if both else torch.ones_like(means)
        for step in range(0 if both else 1, self.tries):
            alpha = step / self.tries
            scale = (means**alpha / over ** (1 - alpha)).clamp(min=1e-4)
            found.append(scale / (scale.max() * scale.min()).sqrt())
        return found

    def _weight_means(self, weights: list[Tensor]) -> Tensor:
        """The mean over rows of |w| over the largest of its group, (C,)."""
        every = torch.cat([weight.abs().float() for weight in weights])
        _, g = self.grid.raster(*every.shape)
        grouped = every.unflatten(1, (g, -1))
        return (grouped / (grouped.amax(-1, keepdim=True) + 1e-6)).flatten(1).mean(0).clamp(1e-4)

    def _clipped(self, weight: Tensor, hessian: Tensor) -> Affine:
        """The grid whose groups err least by themselves, of ranges shrunk by shares."""
        raster = self.grid.raster(*weight.shape)
        low, high = ends(weight, raster)
        bound = torch.maximum(-low, high)
        least = torch.full_like(low, torch.inf)
        best = low, high
        for share in SHRINKS:
            tried = torch.maximum(low, -bound * share), torch.minimum(high, bound * share)
            lost = weight - self.grid.between(*tried).rounded(weight)
            wrong = group_errors(lost, hessian, raster)
            better = wrong < least
            least = torch.where(better, wrong, least)
            best = tuple(torch.where(better, a, b) for a, b in zip(tried, best, strict=True))
        return self.grid.between(*best)


def error(lost: Tensor, hessian: Tensor) -> float:
    """The squared error of a layer's output by what its weight (R, C) has lost."""
    spread = lost @ hessian.float()  # in float32: of several candidates the least is sought
    return float((spread * lost).sum(dtype=torch.float64) / 2)


def ends(weight: Tensor, raster: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The smallest and largest number of each block, (a, g) each."""
    blocks = weight.unflatten(1, (raster[1], -1)).unflatten(0, (raster[0], -1))
    return blocks.amin((1, 3)), blocks.amax((1, 3))


def group_errors(lost: Tensor, hessian: Tensor, raster: tuple[int, int]) -> Tensor:
    """The squared error by each block (a, g), as if the others were exact."""
    a, g = raster
    grouped = lost.double().unflatten(1, (g, -1)).transpose(0, 1)  # (g, R, C/g)
    inside = hessian.unflatten(0, (g, -1)).unflatten(2, (g, -1)).diagonal(dim1=0, dim2=2)
    each = ((grouped @ inside.permute(2, 0, 1)) * grouped).sum(-1) / 2  # (g, R)
    return each.T.unflatten(0, (a, -1)).sum(1)
