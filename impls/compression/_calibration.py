"""Calibration: what a model's layers read, streamed into sums while batches run; nothing is kept.

    hessian  H = 2 sum_t x_t x_t^T,    squares  diag(H) / 2,    absmax  max_t |x_t|
    absmean  mean_t |x_t|,    range

A technique says what it needs. Layers that read the same tensor share one set of sums. C input
channels, N tokens.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from impls.compression._grid import check_finite
from impls.compression._histogram import Histogram
from impls.compression._hosts import Batch, kept, run

Need = Literal["hessian", "squares", "absmax", "absmean", "range"]


@dataclass
class LayerStatistics:
    """Sums over the tokens that one layer has read; those not asked for are None."""

    n_tokens: int = 0
    hessian: Tensor | None = None  # 2 sum x x^T, (C, C) float64
    squares: Tensor | None = None  # sum x^2, (C,) float64
    absmax: Tensor | None = None  # (C,) float32
    abssum: Tensor | None = None  # (C,) float64
    range: Histogram | None = None  # of all numbers

    @property
    def absmean(self) -> Tensor | None:
        """The mean of |x| of each channel, (C,) float32."""
        return None if self.abssum is None else (self.abssum / self.n_tokens).float()

    def add(self, x: Tensor, needs: frozenset[Need]) -> None:
        """Take in tokens x (N, C).

        Raises:
            ValueError: if a number is not finite.
        """
        if not len(x):
            return  # a batch of padding alone
        check_finite(x, "the input of a layer during calibration")
        self.n_tokens += len(x)
        if "hessian" in needs:
            wide = x.double()
            new = 2 * wide.T @ wide
            self.hessian = new if self.hessian is None else self.hessian + new
        if "squares" in needs:
            new = x.double().square().sum(0)
            self.squares = new if self.squares is None else self.squares + new
        if "absmax" in needs:
            new = x.abs().amax(0).float()
            self.absmax = new if self.absmax is None else torch.maximum(self.absmax, new)
        if "absmean" in needs:
            new = x.abs().sum(0, dtype=torch.float64)
            self.abssum = new if self.abssum is None else self.abssum + new
        if "range" in needs:
            self.range = self.range or Histogram()
            self.range.add(x)


@dataclass(frozen=True)
class Calibration:
    """Batches that a model is run on to see what its layers read.

    Args:
        batches: token ids (B, T), or mappings with the arguments of the model's call; padding that
            `keep` or `attention_mask` marks is left out of every sum.

    Raises:
        ValueError: if there is none.
    """

    batches: Sequence[Batch] = field(repr=False)

    def __post_init__(self) -> None:
        if not len(self.batches):
            raise ValueError("calibration needs at least one batch of token ids, got none")

    def collect(
        self,
        model: nn.Module,
        layers: Sequence[str],
        needs: frozenset[Need],
        maps: Mapping[str, nn.Module] = MappingProxyType({}),
    ) -> dict[str, LayerStatistics]:
        """Run all batches once; the statistics of each layer by name.

        Args:
            model: what is run.
            layers: names of linear layers.
            needs: which sums.
            maps: what stands before a layer, while it runs; the sums are of its result.

        Raises:
            ValueError: if a layer has read nothing, or something that is not finite.
        """
        by_layer: dict[str, LayerStatistics] = {}
        last: list[Any] = [None] * 4  # the tensor read last, its map and result, and their sums

        def reader(name: str, keep: Tensor | None) -> Callable[[nn.Module, Tensor], Tensor]:
            def read(_: nn.Module, x: Tensor) -> Tensor:
                before = maps.get(name)
                if x is not last[0] or before is not last[1]:
                    mapped = x if before is None else before(x)
                    last[:] = x, before, mapped, by_layer.setdefault(name, LayerStatistics())
                    last[3].add(tokens(mapped, keep), needs)
                by_layer[name] = last[3]
                return last[2]

            return read

        for batch in self.batches:
            with reading(model, {name: reader(name, kept(batch)) for name in layers}):
                run(model, batch)
        silent = [name for name in layers if name not in by_layer]
        if silent:
            raise ValueError(f"calibration never reached {', '.join(silent[:3])}: longer batches?")
        return by_layer

    def inputs(self, model: nn.Module, layer: str) -> Iterator[Tensor]:
        """What one layer reads, (N, C) for each batch in turn; nothing else is kept."""
        for batch in self.batches:
            seen: list[Tensor] = []
            with reading(model, {layer: lambda _, x, seen=seen: seen.append(x)}):
                run(model, batch)
            yield from (tokens(x, kept(batch)) for x in seen)


@contextmanager
def reading(
    model: nn.Module, readers: dict[str, Callable[[nn.Module, Tensor], Tensor | None]]
) -> Iterator[None]:
    """Inside the block, each reader is called with its layer and what that layer reads.

    A tensor that it returns is what the layer then reads.
    """
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda module, args, read=read: read(module, args[0])
        )
        for name, read in readers.items()
    ]
    try:
        with torch.no_grad():
            yield
    finally:
        for hook in hooks:
            hook.remove()


def tokens(x: Tensor, keep: Tensor | None) -> Tensor:
    """Inputs (..., C) as (N, C), without padding where (B, T) says what is none."""
    if keep is not None and keep.shape == x.shape[:-1]:
        return x[keep]
    return x.reshape(-1, x.shape[-1])
