"""Where a scale of a layer's input channels can be hidden in what comes before it.

    y = W x,  x = norm(h):    x / s by the norm's weight over s,       W diag(s) in its place
    y = W x,  x = mix(V h):   x / s by the rows of V over s,           W diag(s)

`norm` feeds linear layers alone in pre-norm blocks. The rows of V (values, or the up projection of
a gated feed-forward layer) pass to W channel by channel, as long as there are as many value heads
as query heads. Post-norm blocks, whose norms also feed the residual stream, have no norm to fold
into, and an activation function that is not linear stands between their feed-forward layers.
"""

from dataclasses import dataclass

from torch import nn


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


def _named(fold: Fold) -> tuple[str, ...]:
    return (*fold.targets, *(name for name in (fold.norm, fold.linear) if name))


def _checked(block: nn.Module, fold: Fold) -> Fold:
    """The fold, without its source where value heads are shared by several query heads."""
    if fold.linear is None:
        return fold
    source, target = block.get_submodule(fold.linear), block.get_submodule(fold.targets[0])
    return fold if source.out_features == target.in_features else Fold(fold.targets)
