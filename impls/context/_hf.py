"""Extension rules on Hugging Face Llama-type models, whose own code stays as it is.

A pure rotation takes the place of the model's `rotary_emb`. Any other encoding needs queries and
keys as projected: `rotary_emb` then turns by nothing, so that the model's cache holds raw keys, and
an attention function that asks the encoding is registered for the time of the block.
"""

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impls.context._rescaled import Rescaled
from impls.models.hooks import Cache, Frame, PositionEncoding
from impls.positions._rotary import RotaryEncoding


def is_llama_like(model: nn.Module) -> bool:
    """Whether the model has one rotation of the kind Llama has."""
    owners = _owners(model)
    return len(owners) == 1 and isinstance(_rope_parameters(owners[0]), dict)


class LlamaHost:
    """A Llama-type model as something that holds a position encoding."""

    def __init__(self, model: nn.Module) -> None:
        self.owner = _owners(model)[0]
        self.train_len = int(self.owner.config.max_position_embeddings)
        rotary = self.owner.rotary_emb
        own = isinstance(rotary, _Rotation | _NoRotation)
        self.encoding = rotary.encoding if own else _encoding_of(self.owner)

    @contextmanager
    def placed(
        self, encoding: PositionEncoding, new_cache: Callable[[], Cache] | None
    ) -> Iterator[None]:
        """Put another encoding in force for the time of a block; the model's own caches stay."""
        if isinstance(encoding, RotaryEncoding) and encoding.static_keys:
            with _swapped(self.owner, "rotary_emb", _Rotation(encoding)):
                yield
            return
        rotation = _NoRotation(encoding)
        with (
            _swapped(self.owner, "rotary_emb", rotation),
            _attending(self.owner, rotation.attend),
        ):
            yield


class _Rotation(nn.Module):
    """Stands where a Llama's `rotary_emb` stood, with the angles of an encoding."""

    def __init__(self, encoding: Rescaled) -> None:
        super().__init__()
        self.encoding = encoding

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cos and sin (B or 1, T, d) in x's dtype."""
        angles, factor = self.encoding.angles(position_ids, int(position_ids.max()) + 1)
        angles = torch.cat((angles, angles), dim=-1)
        return (factor * angles.cos()).to(x.dtype), (factor * angles.sin()).to(x.dtype)


class _NoRotation(nn.Module):
    """Stands where a `rotary_emb` stood and turns nothing; attention asks the encoding instead."""

    def __init__(self, encoding: PositionEncoding) -> None:
        super().__init__()
        self.encoding = encoding
        self.positions: Tensor | None = None  # of the tokens of this forward pass

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cos 1 and sin 0 for components of any width, (B or 1, T, 1)."""
        self.positions = position_ids
        ones = x.new_ones(*position_ids.shape, 1)
        return ones, torch.zeros_like(ones)

    def attend(
        self,
        layer: nn.Module,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor,
        *,
        scaling: float,
        dropout: float = 0.0,
        **options: Any,
    ) -> tuple[Tensor, None]:
        """Attention as transformers calls it: (B, T, H, d), no weights.

        Raises:
            ValueError: if the model changes its scores in other ways as well.
        """
        for name in ("softcap", "s_aux"):
            if options.get(name) is not None:
                raise ValueError(
                    f"{type(layer).__name__} sets {name}, which a changed score would lose: "
                    "take a technique that changes frequencies only"
                )
        frame = _frame(self.positions, mask)
        bias = self.encoding.score_bias(q, k, frame)
        if bias is not None:
            own = scaling / self.encoding.scale(q.shape[-1])  # the model's factor, where it has one
            mask = mask + own * bias.to(mask.dtype)
        y = F.scaled_dot_product_attention(
            self.encoding.queries(q, frame),
            self.encoding.keys(k, frame),
            v,
            attn_mask=mask,
            dropout_p=dropout,
            scale=scaling,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return y.transpose(1, 2).contiguous(), None


def _frame(q_pos: Tensor, mask: Tensor) -> Frame:
    """Where queries, and the keys of the model's cache, stand.

    Args:
        q_pos: (B or 1, Tq).
        mask: (B, 1, Tq, Tk), 0 for visible keys; a static cache has empty places after the last.
    """
    n_k = mask.shape[-1]
    if q_pos.shape[1] == n_k:
        return Frame(q_pos, q_pos)
    after_last = (mask[:, 0, -1] == 0).flip(-1).int().argmax(-1, keepdim=True)
    back = torch.arange(1 - n_k, 1, device=mask.device) + after_last  # 0 at the last visible key
    return Frame(q_pos, q_pos[:, -1:] + back, length=int(q_pos.max()) + 1)


@contextmanager
def _swapped(owner: nn.Module, name: str, module: nn.Module) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, module)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _attending(model: nn.Module, attend: Callable[..., Any]) -> Iterator[None]:
    """The model with another attention function."""
    masking = import_module("transformers.masking_utils")
    functions = import_module("transformers.modeling_utils").ALL_ATTENTION_FUNCTIONS
    masks = masking.ALL_MASK_ATTENTION_FUNCTIONS
    shared, name = model.config, f"llmatrix-{id(attend):x}"
    users = [module for module in model.modules() if module.__dict__.get("config") is shared]
    own = copy.copy(shared)  # another model may have been built from the same config
    own._attn_implementation = name
    functions[name] = attend
    masks.register(name, masking.eager_mask)  # looked up in this table alone
    for module in users:
        module.config = own
    try:
        yield
    finally:
        for module in users:
            module.config = shared
        del functions[name]
        del masks._global_mapping[name]


def _owners(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if "rotary_emb" in module._modules]


def _rope_parameters(owner: nn.Module) -> object:
    return getattr(getattr(owner, "config", None), "rope_parameters", None)


def _encoding_of(owner: nn.Module) -> RotaryEncoding:
    """The rotation that a model's config describes.

    Raises:
        ValueError: if it is no plain one, or pairs components otherwise than Llama.
    """
    config, rope = owner.config, owner.config.rope_parameters
    if rope.get("rope_type", "default") != "default" or "rope_theta" not in rope:
        raise ValueError(
            f"the rotation of {type(owner).__name__} is changed already, {rope}: "
            "load the model with rope_type 'default'"
        )
    rotate_half = getattr(sys.modules[type(owner).__module__], "rotate_half", None)
    if rotate_half is None or rotate_half(torch.arange(4)).tolist() != [-2, -3, 0, 1]:
        raise ValueError(f"{type(owner).__name__} does not pair components as Llama does")
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    d = int(width * rope.get("partial_rotary_factor", 1.0))
    return RotaryEncoding(d, rope["rope_theta"], "half")
