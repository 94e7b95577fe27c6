"""A model as a folder: `weights.safetensors`, and `model.json` that says how to build it.

`model.json` names the kind of model, its shape, and its position and attention techniques by their
catalogue names and options, so that `load` gives back the same model with the same behaviour.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from harness import catalogue
from impls.models.decoder import Decoder
from impls.models.encoder import Encoder
from impls.models.encoder_decoder import EncoderDecoder
from impls.models.shapes import DecoderShape, EncoderDecoderShape, EncoderShape

FORMAT = "llmatrix model 1"
KINDS: Mapping[str, tuple[Any, Any]] = {
    "decoder": (Decoder, DecoderShape),
    "encoder": (Encoder, EncoderShape),
    "encoder_decoder": (EncoderDecoder, EncoderDecoderShape),
}


class CheckpointError(ValueError):
    """A checkpoint that is missing, cut short or of something else; the message says which file."""


def save(model: nn.Module, folder: Path) -> None:
    """Write a model; each file appears whole or not at all.

    Raises:
        ValueError: if the model is none of this project's kinds.
    """
    kinds = [kind for kind, (cls, _) in KINDS.items() if type(model) is cls]
    if not kinds:
        raise ValueError(f"cannot save a {type(model).__name__}: only {', '.join(KINDS)}")
    description = {
        "format": FORMAT,
        "kind": kinds[0],
        "shape": TypeAdapter(type(model.shape)).dump_python(model.shape, mode="json"),
        **{role: described(recipe) for role, recipe in model.recipes.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(distinct(model), folder / "weights.safetensors")
    write_atomically(folder / "model.json", json.dumps(description, indent=1).encode())


def load(folder: Path) -> Any:
    """The model `save` wrote, in evaluation mode.

    Raises:
        CheckpointError: if a file is missing, cut short, or not of this format.
        UsageError: if a technique it uses is not in the catalogue.
    """
    path = folder / "model.json"
    description = read_json(path)
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no {FORMAT!r}: it was written by something else")
    try:
        cls, shape = KINDS[description["kind"]]
        shape = _built(shape, description["shape"])
        recipes = {role: _recipe(description[role]) for role in ("encoding", "attention")}
    except (KeyError, ValidationError) as error:
        raise CheckpointError(f"{path} describes no model: {error}") from error
    model = cls(shape, **recipes)
    fill(model, read_tensors(folder / "weights.safetensors"), str(folder))
    return model.eval()


def distinct(model: nn.Module) -> dict[str, Tensor]:
    """A model's parameters and buffers by name, those it shares under their first name only."""
    state = model.state_dict()
    found: dict[object, str] = {}
    for name, tensor in state.items():
        same = (tensor.data_ptr(), tensor.shape) if tensor.numel() else name
        found.setdefault(same, name)
    return {name: state[name] for name in found.values()}


def fill(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into the parameters and buffers of the same names.

    Raises:
        CheckpointError: if a name or a shape is not the model's; nothing is copied then.
    """
    own = distinct(model)
    for what, names in (("lacks", own.keys() - tensors), ("has unknown", tensors.keys() - own)):
        if names:
            raise CheckpointError(f"{source} {what} tensors of this model: {_listed(names)}")
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise CheckpointError(
                f"{source} has {name} of shape {tuple(tensors[name].shape)}, "
                f"the model's is {tuple(tensor.shape)}"
            )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file that appears whole or not at all."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        new = Path(scratch) / path.name
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, new, metadata)
        _publish(new, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: if it is missing or cut short.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no {path}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is cut short or no safetensors file: {error}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        new = Path(scratch) / path.name
        new.write_bytes(content)
        _publish(new, path)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        CheckpointError: if it is missing or no JSON.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no {path}")
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{path} is cut short or no JSON: {error}") from error


def _publish(new: Path, path: Path) -> None:
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.replace(path)


def described(recipe: object | None) -> dict[str, Any] | None:
    """A technique's catalogue name and options, as JSON; None for none."""
    if recipe is None:
        return None
    options = TypeAdapter(type(recipe)).dump_python(recipe, mode="json")
    return {"name": catalogue.name_of(recipe), "options": options}


def _recipe(told: Mapping[str, Any] | None) -> Any:
    return told and _built(catalogue.load(told["name"]), told["options"])


def _built(cls: Any, options: Any) -> Any:
    return TypeAdapter(cls).validate_json(json.dumps(options), strict=True)


def _listed(names: Any) -> str:
    shown = sorted(names)
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")
