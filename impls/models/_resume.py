"""A training run as one file: weights, the optimizer's state, the losses so far, whose it is.

The file is replaced as a whole, so a process killed at any moment leaves the last one or the new.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from impls.models.checkpoint import CheckpointError, distinct, fill, read_tensors, write_tensors


def identity(recipe: Any, model: nn.Module, tokens: np.ndarray, loss: object) -> dict[str, Any]:
    """What must be the same for a run to go on, as JSON."""
    shapes = [f"{name} {tuple(t.shape)} {t.dtype}" for name, t in distinct(model).items()]
    text = hashlib.blake2b(np.ascontiguousarray(tokens), digest_size=16)
    return {
        **TypeAdapter(type(recipe)).dump_python(recipe, mode="json"),
        "model": type(model).__name__,
        "techniques": repr(getattr(model, "recipes", None)),
        "parameters": hashlib.blake2b("\n".join(shapes).encode(), digest_size=16).hexdigest(),
        "text": f"{len(tokens)} {tokens.dtype} {text.hexdigest()}",
        "loss": getattr(loss, "__qualname__", repr(loss)),
    }


@dataclass(frozen=True)
class Kept:
    """The file of a run, and whose run it is."""

    path: Path
    identity: dict[str, Any]

    def save(
        self, model: nn.Module, optimizer: Optimizer, losses: list[float], seconds: float
    ) -> None:
        """Write the run as it stands."""
        tensors = {f"model.{name}": tensor for name, tensor in distinct(model).items()}
        tensors |= _optimizer_state(model, optimizer)
        history = {"identity": self.identity, "losses": losses, "seconds": seconds}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(tensors, self.path, {"training": json.dumps(history)})

    def restore(self, model: nn.Module, optimizer: Optimizer) -> tuple[list[float], float]:
        """Losses and seconds of the run so far; model and optimizer have its state then.

        Raises:
            CheckpointError: if the file is damaged, or of another run.
        """
        if not self.path.exists():
            return [], 0.0
        history = _history(self.path)
        ours, theirs = self.identity, history["identity"]
        unlike = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        if unlike:
            told = "; ".join(f"{n}: {theirs.get(n)} there, {ours.get(n)} here" for n in unlike)
            raise CheckpointError(f"{self.path} is of another run ({told}): choose another folder")
        tensors = read_tensors(self.path)
        fill(model, _under("model.", tensors), str(self.path))
        for name, parameter in model.named_parameters():
            state = _under(f"optimizer.{name}|", tensors)
            if state:  # cloned: what is mapped from a file is aligned otherwise
                optimizer.state[parameter] = {key: t.clone() for key, t in state.items()}
        return history["losses"], history["seconds"]


def _history(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads(file.metadata()["training"])
    except (SafetensorError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path} is damaged or no training checkpoint: delete it to start anew"
        ) from error


def _optimizer_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    return {
        f"optimizer.{name}|{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, named by what follows."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
