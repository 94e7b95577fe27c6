"""SmoothQuant: outlying channels of inputs are divided by scales that the weights take on.

    Y = (X diag(s)^-1) (diag(s) W^T),      s_j = max|X_j|^alpha / max|W_j|^(1 - alpha)

The maxima of a channel j are over calibration tokens and over all layers that read it. 1/s folds
into the norm before them where that feeds them alone; in post-norm models an input map keeps it.
Then inputs and weights are rounded to 8 bits: by default inputs per token as they come (the paper's
O1); `activation_granularity="tensor"` makes it O2, with `activation_static` O3.
"""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from harness.card import Card
from impls.compression._activation import ActivationRounding
from impls.compression._grid import Granularity, check_finite
from impls.compression._hosts import linears_of
from impls.compression._inputs import ChannelScale
from impls.compression._options import WeightAndInputOptions
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
    cls="SmoothQuant",
    title="SmoothQuant",
    paper="arXiv:2211.10438",
    year=2022,
    summary="Divides outlying input channels by scales that the weights take on; 8 bits for both.",
    oracle="torchao's scale of a layer; equal to the model before anything is rounded",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SmoothQuant(WeightAndInputOptions):
    """Migration of scales from inputs to weights, before rounding both."""

    bits: int = 8
    symmetric: bool = True
    granularity: Granularity = "tensor"
    activation_bits: int | None = 8
    alpha: float = 0.5  # 0: weights are made even, 1: inputs are
    where: Literal["norms", "all"] = "norms"  # inputs that come from a norm, as in the paper; all

    def __post_init__(self) -> None:
        WeightAndInputOptions.__post_init__(self)
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be from 0 to 1, got {self.alpha}")

    @property
    def needs(self) -> frozenset[Need]:
        """The largest input of each channel."""
        return frozenset({"absmax"})

    def compressed(
        self, model: nn.Module, calibration: Calibration | None = None, *, layers: str = "*"
    ) -> nn.Module:
        """A smoothed copy, rounded; a static range takes a second pass, over the smoothed copy."""
        calibration = calibrated(self, calibration)
        small, moves = self.smoothed(model, calibration, layers=layers)
        chosen = linears_of(small, layers)
        known: dict[str, LayerStatistics] = {}
        if self.is_static:
            known = calibration.collect(small, list(chosen), frozenset({"range"}), moves.maps)

        def make(name: str, linear: nn.Linear) -> CompressedLinear:
            rounding = self.rounding(known.get(name, LayerStatistics()))
            weight = self.nearest(linear.weight.detach())
            return moves.layer(name, Parts(weight, rounding), linear.bias)

        replace_each(small, chosen, make)
        return small

    def smoothed(
        self, model: nn.Module, calibration: Calibration, *, layers: str = "*"
    ) -> tuple[nn.Module, Moves]:
        """A copy that computes the same once the maps stand before its layers; nothing rounded."""
        smooth = copy.deepcopy(model).eval()
        chosen = linears_of(smooth, layers)
        known = calibration.collect(smooth, list(chosen), self.needs)
        moves = Moves()
        for site in sites_of(smooth, chosen):
            if self.where == "all" or site.normed:
                weights = [linear.weight for linear in site.linears.values()]
                absmax = known[next(iter(site.linears))].absmax
                moves.move(smooth, site, migration(absmax, weights, self.alpha))
        return smooth, moves

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """One layer by itself, its scale in an input map.

        Raises:
            ValueError: for a static range that the largest inputs do not tell.
        """
        scale = migration(statistics.absmax, [weight], self.alpha)
        bound = (statistics.absmax / scale).max()
        return Parts(self.nearest(weight * scale), self._alone(bound), ChannelScale(scale))

    def _alone(self, bound: Tensor) -> ActivationRounding | None:
        if not self.is_static:
            return self.rounding(LayerStatistics())
        grid = self.activation_grid
        if grid.range != "minmax" or not grid.symmetric:
            raise ValueError(
                f"the range {grid.range!r} of smoothed inputs takes another pass over the model: "
                "use `compressed`, or a symmetric 'minmax'"
            )
        return ActivationRounding(grid, -bound, bound)


def migration(absmax: Tensor, weights: list[Tensor], alpha: float) -> Tensor:
    """The scales s of input channels, (C,) float32; 1 where a channel or its weights are all 0."""
    for weight in weights:
        check_finite(weight, "a weight")
    largest = torch.stack([weight.detach().abs().amax(0).float() for weight in weights]).amax(0)
    scale = absmax.pow(alpha) / largest.pow(1 - alpha)
    return torch.where((absmax > 0) & (largest > 0), scale, torch.ones_like(scale))
