"""Compression: a trained model in fewer bytes, and what that costs.

A recipe makes a compressed copy of a model; the model itself stays as it is:

    calibration = Calibration(batches)                      # token ids, or arguments of the model
    small = GPTQ(bits=4, group=64).compressed(model, calibration)

It works on this project's decoder and encoder and on Hugging Face models of repeated blocks, Llama
and BERT among them. A `LayerCompression` makes a layer of each linear layer of the blocks; other
recipes change the model as a whole. What takes a layer's place is a `CompressedLinear`: a stored
weight, and what rounds and maps its input, so that techniques compose; its bytes are the buffers
that it stores. R output rows, C input columns, H = 2 X^T X, x rows are tokens.

What every member satisfies (tests/contracts/test_compression.py): the model given is left as it
was; a layer unpacks to the bits that were packed; forward is the product with `dequantize()`
unless activations are rounded too; `nbytes` is what a file holds; bad weights, groups that do not
divide and missing calibration get a ValueError.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from impls.compression._activation import ActivationRounding
from impls.compression._calibration import Calibration, LayerStatistics, Need
from impls.compression._files import load, save
from impls.compression._grid import Affine, Grid, check_finite
from impls.compression._hosts import Batch, blocks_of, linears_of, replace_module, run
from impls.compression._injection import inject_outliers
from impls.compression._layer import CompressedLinear, Packed, Parts
from impls.compression._measures import LayerError, layer_errors, model_bytes
from impls.compression._stored import PackedError, StoredWeight

__all__ = [
    "ActivationRounding",
    "Affine",
    "Batch",
    "Calibration",
    "CompressedLinear",
    "Compression",
    "Grid",
    "LayerCompression",
    "LayerError",
    "LayerStatistics",
    "Need",
    "Packed",
    "PackedError",
    "Parts",
    "StoredWeight",
    "blocks_of",
    "inject_outliers",
    "layer_errors",
    "linears_of",
    "load",
    "model_bytes",
    "run",
    "save",
]


class Compression(ABC):
    """A compression technique."""

    @property
    def needs(self) -> frozenset[Need]:
        """What it wants to know of what layers read; nothing: it needs no calibration."""
        return frozenset()

    @abstractmethod
    def compressed(
        self, model: nn.Module, calibration: Calibration | None = None, *, layers: str = "*"
    ) -> nn.Module:
        """A compressed copy, in evaluation mode.

        Args:
            model: this project's decoder or encoder, or a Hugging Face model of blocks.
            calibration: batches of the model's input, where the technique needs them.
            layers: which linear layers of the blocks, a pattern of names as of a shell.

        Raises:
            ValueError: if calibration is missing, no layer fits the pattern, the model is none this
                technique can change, or a weight or an input is not finite.
        """


class LayerCompression(Compression):
    """A technique that makes a compressed layer of a linear one.

    `compress` treats one by itself. So does `compressed`, unless a technique overrides it because
    layers share something: the scale of an input they all read, or what a block learns.
    """

    @abstractmethod
    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """What a weight (R, C) float32 becomes; the statistics hold what `needs` says."""

    def compress(
        self, linear: nn.Linear, statistics: LayerStatistics | None = None
    ) -> CompressedLinear:
        """The layer that takes the place of one linear layer.

        Raises:
            ValueError: if a weight is not finite, statistics are missing or of another width, or
                the technique's options do not fit the layer.
        """
        weight = linear.weight.detach()
        check_finite(weight, "a weight")
        statistics = statistics or LayerStatistics()
        check_statistics(type(self).__name__, self.needs, statistics, weight.shape[1])
        with torch.no_grad():
            return CompressedLinear(self.parts(weight.float(), statistics), linear.bias)

    def compressed(
        self, model: nn.Module, calibration: Calibration | None = None, *, layers: str = "*"
    ) -> nn.Module:
        """A copy with every chosen layer compressed; one pass over the model calibrates it."""
        small = copy.deepcopy(model).eval()
        chosen = linears_of(small, layers)
        known: dict[str, LayerStatistics] = {}
        if self.needs:
            known = calibrated(self, calibration).collect(small, list(chosen), self.needs)
        replace_each(small, chosen, lambda name, layer: self.compress(layer, known.get(name)))
        return small


def replace_each(
    model: nn.Module,
    chosen: Mapping[str, nn.Linear],
    make: Callable[[str, nn.Linear], CompressedLinear],
) -> None:
    """Put what `make` gives into the place of each chosen layer of a model.

    Raises:
        ValueError: with the layer's name, if `make` does.
    """
    for name, linear in chosen.items():
        try:
            replace_module(model, name, make(name, linear))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def calibrated(technique: object, calibration: Calibration | None) -> Calibration:
    """The calibration, which must be there.

    Raises:
        ValueError: if it is not.
    """
    if calibration is None:
        raise ValueError(
            f"{type(technique).__name__} needs calibration: pass Calibration(batches of token ids)"
        )
    return calibration


def check_statistics(
    technique: str, needs: frozenset[Need], statistics: LayerStatistics, columns: int
) -> None:
    """Refuse statistics that lack something or are of another layer.

    Raises:
        ValueError: with what is missing.
    """
    for need in sorted(needs):
        found = getattr(statistics, need) if statistics.n_tokens else None
        if found is None:
            raise ValueError(
                f"{technique} needs {need} of what the layer reads: "
                "take the statistics from Calibration.collect"
            )
        if isinstance(found, Tensor) and found.shape[-1] != columns:
            raise ValueError(
                f"{need} is of {found.shape[-1]} channels and the layer reads {columns}: "
                "the statistics are of another layer"
            )
