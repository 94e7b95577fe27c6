"""What blocks do to the hidden states that pass them, and models with fewer of them.

    cos_l,n = h_l . h_l+n / (|h_l| |h_l+n|)      of each token that is no padding

h_l what block l reads, h_L what the last gives. B batch, T tokens, D model width, L blocks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from impls.compression._calibration import Calibration, tokens
from impls.compression._grid import check_finite
from impls.compression._hosts import Batch, blocks_of, kept, run

Hidden = list[Tensor]


def hidden_states(model: nn.Module, batch: Batch) -> Hidden:
    """What each block reads and what the last gives, (N, D) each, without padding."""
    found, keep = [], kept(batch)

    def read(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        found.append(tokens(args[0] if args else kwargs["hidden_states"], keep))

    def made(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        found.append(tokens(output[0] if isinstance(output, tuple) else output, keep))

    blocks = list(blocks_of(model).values())
    hooks = [block.register_forward_pre_hook(read, with_kwargs=True) for block in blocks]
    hooks.append(blocks[-1].register_forward_hook(made))
    try:
        run(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@torch.no_grad()
def turns(
    model: nn.Module, calibration: Calibration, distance: int, *, angles: bool = False
) -> Tensor:
    """How far hidden states turn over so many blocks, from each l on, (L + 1 - distance,) float64.

    The mean over tokens of 1 - cos, or of the angle over pi.

    Raises:
        ValueError: if a hidden state is not finite.
    """
    sums, n_tokens = torch.zeros((), dtype=torch.float64), 0
    for batch in calibration.batches:
        states = [h.double() for h in hidden_states(model, batch)]
        for h in states:
            check_finite(h, "a hidden state")
        pairs = zip(states, states[distance:], strict=False)
        cosines = torch.stack([_cosine(a, b) for a, b in pairs]).clamp(-1, 1)
        sums = sums + (cosines.arccos() / torch.pi if angles else 1 - cosines).sum(1)
        n_tokens += len(states[0])
    return sums / n_tokens


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Of each row; exactly 1 where both are equal."""
    dot, size = (a * b).sum(-1), a.norm(dim=-1) * b.norm(dim=-1)
    found = dot / size.clamp(min=torch.finfo(a.dtype).tiny)
    return torch.where((a == b).all(-1), torch.ones_like(found), found)


def drop(model: nn.Module, gone: Sequence[int]) -> None:
    """Take blocks out of a model, in place; what counts or numbers blocks is told.

    Raises:
        ValueError: if the blocks are not one list.
    """
    names = list(blocks_of(model))
    lists = {name.rpartition(".")[0] for name in names}
    if len(lists) > 1:
        raise ValueError(
            f"{type(model).__name__} has its blocks in {len(lists)} lists: only models of one, "
            "decoders and encoders, can lose some"
        )
    stack = model.get_submodule(lists.pop())
    stays = [n for n in range(len(names)) if n not in set(gone)]
    _tell(model, stays)
    left = [stack[n] for n in stays]
    del stack[len(left) :]
    for n, block in enumerate(left):
        stack[n] = block
        for part in block.modules():
            if isinstance(getattr(part, "layer_idx", None), int):
                part.layer_idx = n


def _tell(model: nn.Module, stays: Sequence[int]) -> None:
    """Shapes, configurations and encodings that know how many layers there are."""
    encoding = getattr(model, "encoding", None)
    own = getattr(encoding, "layers", None)
    if isinstance(own, nn.ModuleList) and len(own) > 1:
        encoding.layers = nn.ModuleList(own[n] for n in stays)
    shape = getattr(model, "shape", None)
    if is_dataclass(shape):
        model.shape = replace(shape, n_layers=len(stays))
    config = getattr(model, "config", None)
    if config is not None:
        types = getattr(config, "layer_types", None)
        if types is not None:
            config.layer_types = [types[n] for n in stays]
        config.num_hidden_layers = len(stays)
