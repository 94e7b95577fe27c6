"""Folders in Hugging Face's layout: `config.json` and safetensors, in one file or in shards."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from impls.models.checkpoint import (
    CheckpointError,
    read_json,
    read_tensors,
    write_atomically,
    write_tensors,
)

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def read_config(folder: Path, types: tuple[str, ...]) -> dict[str, Any]:
    """The folder's `config.json`.

    Raises:
        CheckpointError: if it is missing, or of a model type not among these.
    """
    config = read_json(folder / "config.json")
    found = config.get("model_type") if isinstance(config, dict) else None
    if found not in types:
        raise CheckpointError(f"{folder} holds a model of type {found!r}, not {' or '.join(types)}")
    return config


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of the folder, from one file or from the shards of an index.

    Raises:
        CheckpointError: if a file is missing or cut short.
    """
    if (folder / WEIGHTS).exists():
        return read_tensors(folder / WEIGHTS)
    if not (folder / INDEX).exists():
        raise CheckpointError(
            f"{folder} has neither {WEIGHTS} nor {INDEX}: only safetensors are read "
            "(a .bin file can run code; convert it where you trust it)"
        )
    names = read_json(folder / INDEX)["weight_map"]
    found: dict[str, Tensor] = {}
    for shard in sorted(set(names.values())):
        if Path(shard).name != shard:
            raise CheckpointError(f"{folder / INDEX} names {shard!r}, a file outside the folder")
        found |= read_tensors(folder / shard)
    if missing := names.keys() - found:
        raise CheckpointError(f"the shards of {folder} lack {', '.join(sorted(missing)[:5])}")
    return found


def write(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write the folder; each file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(tensors, folder / WEIGHTS, {"format": "pt"})
    write_atomically(folder / "config.json", json.dumps(config, indent=2).encode())


def required(config: Mapping[str, Any], expected: Mapping[str, Any], folder: Path) -> None:
    """Refuse a config that asks for what the model here does not do.

    Args:
        config: of the folder.
        expected: key to the only value that will do; a key the config lacks has it.
        folder: for the message.

    Raises:
        CheckpointError: naming the key and both values.
    """
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise CheckpointError(
                f"{folder / 'config.json'} has {key} = {config[key]!r}, "
                f"the model here has {value!r} only"
            )
