"""Outlier channels put into a model without changing what it computes.

    x_j <- k x_j behind a norm,      W_:j <- W_:j / k in every layer that reads it

Large language models have a few channels that are tens of times larger than the rest; small ones
have not. With them the shapes that SmoothQuant, AWQ and LLM.int8() are about appear in a small
model. Only pre-norm blocks can take them: there a norm feeds linear layers alone.
"""

import copy

import torch
from torch import nn

from impls.compression._folds import safe_folds
from impls.compression._hosts import blocks_of


def inject_outliers(
    model: nn.Module, *, factor: float, channels: int = 4, seed: int = 0
) -> nn.Module:
    """A copy of a pre-norm model whose normed inputs have outliers; outputs are the same.

    Args:
        model: this project's decoder, or a Llama-type model of Hugging Face.
        factor: how much larger the channels become, above 0.
        channels: how many, the same in all layers, as in trained models.
        seed: of their choice.

    Raises:
        ValueError: if the model is of post-norm blocks, or there are fewer channels.
    """
    if not factor > 0:
        raise ValueError(f"factor must be above 0, got {factor}")
    changed = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    chosen = None
    for block in blocks_of(changed).values():
        for fold in safe_folds(block):
            if fold.norm is None:
                continue
            norm = block.get_submodule(fold.norm)
            if chosen is None:
                chosen = _choose(norm.weight.numel(), channels, generator)
            _scale(norm, [block.get_submodule(name) for name in fold.targets], chosen, factor)
    if chosen is None:
        raise ValueError(
            f"{type(model).__name__} has no norm that feeds linear layers alone: "
            "take a pre-norm model, a decoder or a Llama"
        )
    return changed


def _choose(width: int, channels: int, generator: torch.Generator) -> torch.Tensor:
    if not 0 < channels <= width:
        raise ValueError(f"channels must be from 1 to {width}, got {channels}")
    return torch.randperm(width, generator=generator)[:channels]


def _scale(norm: nn.Module, targets: list[nn.Module], chosen: torch.Tensor, factor: float) -> None:
    with torch.no_grad():
        norm.weight[chosen] *= factor
        if getattr(norm, "bias", None) is not None:
            norm.bias[chosen] *= factor
        for linear in targets:
            linear.weight[:, chosen] /= factor
