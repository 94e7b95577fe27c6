"""A compressed model as a folder: `compressed.safetensors`, and `compressed.json` about it.

Every tensor of the model is in the one, as it is stored; the other holds the header of each
compressed layer. `load` puts them into a model of the same kind and depth, whose own weights are
replaced.
"""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from impls.compression._hosts import replace_module
from impls.compression._layer import CompressedLinear, Packed
from impls.compression._stored import PackedError
from impls.models.checkpoint import (
    CheckpointError,
    distinct,
    fill,
    read_json,
    read_tensors,
    write_atomically,
    write_tensors,
)

FORMAT = "llmatrix compressed model 1"
TENSORS, HEADER = "compressed.safetensors", "compressed.json"


def save(model: nn.Module, folder: Path) -> None:
    """Write a compressed model; each file appears whole or not at all."""
    layers = _layers(model)
    described = {
        "format": FORMAT,
        "layers": {name: layer.pack().header for name, layer in layers.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(distinct(model), folder / TENSORS)
    write_atomically(folder / HEADER, json.dumps(described, indent=1).encode())


def load(model: nn.Module, folder: Path) -> nn.Module:
    """Put what `save` wrote into a model of the same kind, in place.

    Raises:
        PackedError: if a file is missing, cut short, of another version or of another model;
            the model is as before then.
    """
    try:
        described, tensors = read_json(folder / HEADER), read_tensors(folder / TENSORS)
    except CheckpointError as error:
        raise PackedError(str(error)) from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise PackedError(f"{folder / HEADER} is no {FORMAT!r}: it was written by something else")
    headers = described.get("layers")
    if not isinstance(headers, dict) or not all(isinstance(h, dict) for h in headers.values()):
        raise PackedError(f"{folder / HEADER} does not tell its layers: it is damaged")
    layers = {name: _layer(name, header, tensors, folder) for name, header in headers.items()}
    _check_places(model, layers, folder)
    before = {name: model.get_submodule(name) for name in layers}
    for name, layer in layers.items():
        replace_module(model, name, layer)
    try:
        fill(model, tensors, str(folder))
    except CheckpointError as error:
        for name, module in before.items():
            replace_module(model, name, module)
        raise PackedError(str(error)) from error
    return model.eval()


def _layers(model: nn.Module) -> dict[str, CompressedLinear]:
    return {n: m for n, m in model.named_modules() if isinstance(m, CompressedLinear)}


def _layer(
    name: str, header: dict[str, Any], tensors: dict[str, Tensor], folder: Path
) -> CompressedLinear:
    start = f"{name}."
    mine = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
    try:
        return CompressedLinear.unpack(Packed(header, mine))
    except PackedError as error:
        raise PackedError(f"{folder}, layer {name}: {error}") from error


def _check_places(model: nn.Module, layers: dict[str, CompressedLinear], folder: Path) -> None:
    for name, layer in layers.items():
        try:
            place = model.get_submodule(name)
        except AttributeError as error:
            raise PackedError(f"{folder} has a layer {name}, the model has none") from error
        want = (getattr(place, "out_features", None), getattr(place, "in_features", None))
        got = (layer.out_features, layer.in_features)
        if want != got:
            raise PackedError(f"{folder} has {name} of shape {got}, the model's is {want}")
