"""Where a scale of a layer's input channels can be hidden in what comes before it.

    y = W x,  x = norm(h):    x / s by the norm's weight over s,       W diag(s) in its place
    y = W x,  x = mix(V h):   x / s by the rows of V over s,           W diag(s)

`norm` feeds linear layers alone in pre-norm blocks. The rows of V (values, or the up projection of
a gated feed-forward layer) pass to W channel by channel, as long as there are as many value heads
as query heads. Post-norm blocks, whose norms also feed the residual stream, have no norm to fold
into, and an activation function that is not linear stands between their feed-forward layers.
"""

from dataclasses import dataclass

import torch
from torch import nn

NORMS = ("attention_norm", "mlp_norm", "input_layernorm", "post_attention_layernorm", "LayerNorm")


@dataclass(frozen=True)
class Fold:
    """Layers of one block that read the same input, and what may take their input's scale.

    Attributes:
        targets: names within the block.
        norm: name of the norm that feeds them alone, or None.
        linear: name of the linear layer whose rows are their input's channels, or None.
        normed: whether their input comes from a norm, be it one that feeds others too.
    """

    targets: tuple[str, ...]
    norm: str | None = None
    linear: str | None = None
    normed: bool = False


_QKV = ("attention.q_proj", "attention.k_proj", "attention.v_proj")
_LLAMA_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_BERT_QKV = ("attention.self.query", "attention.self.key", "attention.self.value")
FOLDS = (  # the blocks of our decoder, Llama, our encoder, BERT; the first two are pre-norm
    (
        Fold(_QKV, norm="attention_norm", normed=True),
        Fold(("attention.o_proj",), linear="attention.v_proj"),
        Fold(("mlp.gate_proj", "mlp.up_proj"), norm="mlp_norm", normed=True),
        Fold(("mlp.down_proj",), linear="mlp.up_proj"),
    ),
    (
        Fold(_LLAMA_QKV, norm="input_layernorm", normed=True),
        Fold(("self_attn.o_proj",), linear="self_attn.v_proj"),
        Fold(("mlp.gate_proj", "mlp.up_proj"), norm="post_attention_layernorm", normed=True),
        Fold(("mlp.down_proj",), linear="mlp.up_proj"),
    ),
    (
        Fold(_QKV, normed=True),
        Fold(("attention.o_proj",), linear="attention.v_proj"),
        Fold(("up_proj",), normed=True),
        Fold(("down_proj",)),
    ),
    (
        Fold(_BERT_QKV, normed=True),
        Fold(("attention.output.dense",), linear="attention.self.value"),
        Fold(("intermediate.dense",), normed=True),
        Fold(("output.dense",)),
    ),
)


def folds_of(block: nn.Module) -> tuple[Fold, ...]:
    """The folds of a block of this project, a Llama or a BERT.

    Raises:
        ValueError: if it is none of these.
    """
    names = {name for name, _ in block.named_modules()}
    for folds in FOLDS:
        if all(names.issuperset(_named(fold)) for fold in folds):
            return tuple(_checked(block, fold) for fold in folds)
    raise ValueError(
        f"{type(block).__name__} is no block of a decoder or encoder of impls.models, a Llama or a "
        "BERT: only their norms and layers are known by name"
    )


def safe_folds(block: nn.Module) -> tuple[Fold, ...]:
    """The block's folds; none where something else in it may read or change what passes."""
    try:
        folds = folds_of(block)
    except ValueError:
        return ()
    targets = {target for fold in folds for target in fold.targets}
    own = {name for name, part in block.named_modules() if [*part.parameters(recurse=False)]}
    known = all(name.endswith(NORMS) for name in own - targets)
    scaled = all(_is_scaled(block.get_submodule(fold.norm)) for fold in folds if fold.norm)
    return folds if known and scaled else ()


def _is_scaled(norm: nn.Module) -> bool:
    """Whether a norm's output is its weight times what it normed, as not all norms have it."""
    weight = norm.weight.detach()
    ones = torch.ones_like(weight)
    ones[1::2] = -1  # mean 0 and mean square 1, but for a width that is odd
    bias = getattr(norm, "bias", None)
    with torch.no_grad():
        gap = norm(ones) - ones * weight - (0 if bias is None else bias)
    return bool((gap.abs() <= 0.1 * weight.abs() + 1e-3).all())


def _named(fold: Fold) -> tuple[str, ...]:
    return (*fold.targets, *(name for name in (fold.norm, fold.linear) if name))


def _checked(block: nn.Module, fold: Fold) -> Fold:
    """The fold, without its source where value heads are shared by several query heads."""
    if fold.linear is None:
        return fold
    source, target = block.get_submodule(fold.linear), block.get_submodule(fold.targets[0])
    return fold if source.out_features == target.in_features else Fold(fold.targets)
