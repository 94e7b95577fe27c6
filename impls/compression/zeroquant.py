"""ZeroQuant: weights by groups, inputs by tokens, and each block taught by its own original.

    min sum |L_k(X) - L^_k(X)|^2,      X what block k reads in the model quantized up to k

L_k block k, L^_k the same with weights and inputs rounded as they pass; gradients pass straight.
Block after block trains by itself (layer-by-layer distillation): one block's gradients are in
memory, its input is made anew for each batch by running what is before it. Weights, biases and
norms of the block train; what a block has learned is kept only if it errs less over the whole
calibration. Without steps it is rounding alone, and needs no data.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.card import Card
from impls.compression._blockwise import call_of, called
from impls.compression._calibration import tokens
from impls.compression._grid import check_finite
from impls.compression._hosts import Batch, kept, replace_module
from impls.compression._learning import Loss, learn
from impls.compression._options import WeightAndInputOptions
from impls.compression._straight import StraightLinear
from impls.compression.interface import (
    Calibration,
    CompressedLinear,
    LayerStatistics,
    Parts,
    blocks_of,
    calibrated,
    linears_of,
    replace_each,
)

CARD = Card(
    cls="ZeroQuant",
    title="ZeroQuant",
    paper="arXiv:2206.01861",
    year=2022,
    summary="Rounds weights by groups, inputs by tokens; block by block learns to make up for it.",
    oracle="identity: without steps it is rounding to nearest of the same grid",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ZeroQuant(WeightAndInputOptions):
    """Rounding and layer-by-layer distillation."""

    symmetric: bool = True
    activation_bits: int | None = 8
    steps: int = 100  # of each block, a batch each; 0: no distillation
    lr: float = 1e-4  # of Adam

    def __post_init__(self) -> None:
        WeightAndInputOptions.__post_init__(self)
        if self.steps < 0:
            raise ValueError(f"steps must be at least 0, got {self.steps}")
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")
        if self.steps and self.is_static:
            raise ValueError("a static range moves as blocks train: leave activation_static out")

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """The nearest codes and the rounding of the input: what is there without distillation."""
        return Parts(self.nearest(weight), self.rounding(statistics))

    def compressed(
        self, model: nn.Module, calibration: Calibration | None = None, *, layers: str = "*"
    ) -> nn.Module:
        """A rounded copy; each block with a chosen layer has learned from the model's own."""
        if not self.steps:
            return WeightAndInputOptions.compressed(self, model, calibration, layers=layers)
        calibration, small = calibrated(self, calibration), copy.deepcopy(model).eval()
        chosen, originals = linears_of(small, layers), blocks_of(model)
        for name, block in blocks_of(small).items():
            mine = {n: linear for n, linear in chosen.items() if n.startswith(f"{name}.")}
            if not mine:
                continue
            for n, linear in mine.items():
                check_finite(linear.weight.detach(), f"{n}: a weight")
                replace_module(small, n, self._straight(linear))
            loss = lesson(small, block, copy.deepcopy(originals[name]).eval())
            learn(block, loss, calibration.batches, steps=self.steps, lr=self.lr)
            replace_each(small, {n: small.get_submodule(n) for n in mine}, self._settled)
        return small

    def _straight(self, linear: nn.Linear) -> StraightLinear:
        def weight_rounding(weight: Tensor) -> Tensor:
            return self.grid.fit(weight).rounded(weight)

        return StraightLinear(linear, weight_rounding, self.rounding(LayerStatistics()))

    def _settled(self, _: str, layer: nn.Linear) -> CompressedLinear:
        """The layer that computes what the trained one did."""
        weight = layer.weight.detach().float()
        return CompressedLinear(self.parts(weight, LayerStatistics()), layer.bias)


def lesson(model: nn.Module, block: nn.Module, teacher: nn.Module) -> Loss:
    """The mean squared difference of a block's outputs in its model to a teacher's, of a batch."""

    def loss(batch: Batch) -> Tensor:
        call = call_of(model, block, batch)
        with torch.no_grad():
            wanted = called(teacher, call)
        return tokens(called(block, call) - wanted, kept(batch)).square().mean()

    return loss
