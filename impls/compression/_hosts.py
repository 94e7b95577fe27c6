"""A model seen as what compression works on: repeated blocks, and the linear layers in them.

Blocks are the elements of the lists of modules that hold linear layers, as this project's models
and those of Hugging Face have them; embeddings, heads and poolers stay as they are.
"""

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from impls.models.encoder import Encoder

Batch = Tensor | Mapping[str, Tensor]  # token ids (B, T), or the arguments of the model's call
PADDING = ("keep", "attention_mask")  # which argument of a call says what is no padding


def blocks_of(model: nn.Module) -> dict[str, nn.Module]:
    """The model's blocks by name, in order.

    Raises:
        ValueError: if it has none.
    """
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{block}.") for block in found)
        if inside or not isinstance(module, nn.ModuleList):
            continue
        if all(any(_is_linear(part) for part in block.modules()) for block in module):
            found |= {f"{name}.{n}".removeprefix("."): block for n, block in enumerate(module)}
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no list of blocks with linear layers: take a model of "
            "impls.models or a Hugging Face model of repeated blocks"
        )
    return found


def linears_of(model: nn.Module, pattern: str = "*") -> dict[str, nn.Linear]:
    """The linear layers of all blocks whose name fits a pattern as of a shell, in order.

    Raises:
        ValueError: if none does.
    """
    found = {
        f"{block_name}.{name}": module
        for block_name, block in blocks_of(model).items()
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
    }
    chosen = {name: module for name, module in found.items() if fnmatch(name, pattern)}
    if not chosen:
        some = ", ".join(list(found)[:3]) or "none: all are compressed already"
        raise ValueError(f"no linear layer is called {pattern!r}; there are {some}")
    return chosen


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one of that name."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def run(model: nn.Module, batch: Batch) -> Any:
    """Call the model on a batch; an encoder gives its hidden states, so that none needs a head."""
    call = model.hidden if isinstance(model, Encoder) else model
    return call(batch) if isinstance(batch, Tensor) else call(**batch)


def kept(batch: Batch) -> Tensor | None:
    """Which tokens of a batch are no padding, (B, T) bool; None: all."""
    if isinstance(batch, Tensor):
        return None
    masks = [batch[name] for name in PADDING if batch.get(name) is not None]
    return masks[0].to(torch.bool) if masks else None


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "CompressedLinear"
