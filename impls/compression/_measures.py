"""How far compressed layers stray from the layers they replaced, and how many bytes a model stores.

    layer error  sum |X W^T - y^|^2 / sum |X W^T|^2  over calibration tokens, y^ the layer's output

SQNR is the same in decibels, of the weight alone: 10 log10(sum W^2 / sum (W - W^)^2).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from impls.compression._calibration import Calibration, reading, tokens
from impls.compression._hosts import kept, run
from impls.compression._layer import CompressedLinear


@dataclass(frozen=True)
class LayerError:
    """One layer, compressed."""

    output_error: float  # of the output, relative, squared; 0 is perfect
    sqnr_db: float  # of the weight; infinite where nothing was lost
    max_abs: float  # largest change of a weight
    bits_per_parameter: float  # as stored
    weights: int  # of the layer it replaced


def layer_errors(
    model: nn.Module, compressed: nn.Module, calibration: Calibration
) -> dict[str, LayerError]:
    """The error of each compressed layer on what the original model's layers read.

    Layers that only the original has, as after dropping some, are left out.

    Raises:
        ValueError: if a layer was loaded whose neighbours hold scales of it.
    """
    layers = {
        name: layer
        for name, layer in compressed.named_modules()
        if isinstance(layer, CompressedLinear)
    }
    sums = {name: [0.0, 0.0] for name in layers}
    for batch in calibration.batches:
        keep = kept(batch)

        def read(name: str, linear: nn.Module, x: Tensor, keep: Tensor | None = keep) -> None:
            flat = tokens(x, keep)
            exact = nn.functional.linear(flat, linear.weight, linear.bias).double()
            bias = 0 if linear.bias is None else linear.bias
            into, out_of = _around(name, layers[name])
            found = layers[name](flat / into) * out_of
            sums[name][0] += float((found - exact).double().square().sum())
            sums[name][1] += float((exact - bias).square().sum())

        readers = {name: lambda m, x, n=name, read=read: read(n, m, x) for name in layers}
        with reading(model, readers):
            run(model, batch)
    return {name: _of(model.get_submodule(name), layers[name], *sums[name]) for name in layers}


def _around(name: str, layer: CompressedLinear) -> tuple[Tensor | int, Tensor | int]:
    """What divides the layer's input, and what multiplies its output, in its neighbours."""
    if layer.around is None:
        raise ValueError(
            f"{name} was loaded, and files do not tell the scales folded into its neighbours: "
            "measure before saving, or compress without folding"
        )
    into, out_of = layer.around
    return 1 if into is None else into, 1 if out_of is None else out_of


def _of(linear: nn.Module, layer: CompressedLinear, error: float, total: float) -> LayerError:
    weight = linear.weight.detach().double()
    into, out_of = layer.around
    found = layer.dequantize().double() / (1 if into is None else into)
    lost = weight - (found if out_of is None else found * out_of[:, None])
    noise, signal = float(lost.square().sum()), float(weight.square().sum())
    return LayerError(
        output_error=error / total if total else 0.0,
        sqnr_db=10 * math.log10(signal / noise) if noise and signal else math.inf,
        max_abs=float(lost.abs().max()),
        bits_per_parameter=layer.bits_per_parameter(),
        weights=weight.numel(),
    )


def model_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, shared ones once."""
    seen: dict[int, Tensor] = {}
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            seen.setdefault(tensor.data_ptr(), tensor)
    return sum(tensor.nbytes for tensor in seen.values())
