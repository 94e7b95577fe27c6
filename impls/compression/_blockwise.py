"""Blocks of a model one at a time: what one reads, found by running the model up to it.

Nothing is kept but one batch's input of one block.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from impls.compression._hosts import Batch, run

CACHES = ("past_key_values", "past_key_value", "state")  # a second call would write to them again


class Call(NamedTuple):
    """The arguments of a block's call."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _ReachedError(Exception):
    """The block's turn has come; nobody but `call_of` sees it."""


def call_of(model: nn.Module, block: nn.Module, batch: Batch) -> Call:
    """The arguments a block is called with for a batch, without caches; no gradients."""
    found: list[Call] = []

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(Call(args, {k: None if k in CACHES else v for k, v in kwargs.items()}))
        raise _ReachedError

    hook = block.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with torch.no_grad():
            run(model, batch)
    except _ReachedError:
        pass
    finally:
        hook.remove()
    return found[0]


def called(block: nn.Module, call: Call) -> Tensor:
    """What a block makes of arguments: hidden states (B, T, D)."""
    made = block(*call.args, **call.kwargs)
    return made[0] if isinstance(made, tuple) else made
