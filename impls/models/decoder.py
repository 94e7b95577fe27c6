"""A pre-norm decoder: RMSNorm, attention, SwiGLU, tied or untied head; Llama's shape.

    x <- x + Attention(RMSNorm(x));   x <- x + W_2(silu(W_1 z) * W_3 z),  z = RMSNorm(x)

Position encoding, attention and cache plug in (`impls/models/hooks.py`); without any, attention is
dense and knows no positions. B batch, T tokens, D model width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impls.models.attention import SelfAttention
from impls.models.hooks import AttentionRecipe, EncodingRecipe, PositionEncoding
from impls.models.shapes import SIZES, DecoderShape, sized

__all__ = ["SIZES", "Decoder", "DecoderShape", "DecodingState", "RMSNorm", "SwiGLU", "sized"]


class RMSNorm(nn.Module):
    """x over its root mean square, times a weight; in float32 whatever autocast says."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis; the result has the dtype that products are computed in."""
        y = F.rms_norm(x, x.shape[-1:], self.weight.to(x.dtype), self.eps)
        if torch.is_autocast_enabled(x.device.type):  # cast once, not in each layer that reads it
            return y.to(torch.get_autocast_dtype(x.device.type))
        return y


class SwiGLU(nn.Module):
    """W_2(silu(W_1 x) * W_3 x), arXiv:2002.05202."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and a residual addition."""

    def __init__(self, shape: DecoderShape, attention: nn.Module) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(shape.d_model, shape.norm_eps)
        self.attention = attention
        self.mlp_norm = RMSNorm(shape.d_model, shape.norm_eps)
        self.mlp = SwiGLU(shape.d_model, shape.hidden)

    def forward(self, x: Tensor, **where: Any) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        x = x + self.attention(self.attention_norm(x), **where)
        return x + self.mlp(self.mlp_norm(x))


@dataclass
class DecodingState:
    """One state a layer, and how many tokens they have taken in."""

    layers: list[Any]
    length: int = field(default=0)


class Decoder(nn.Module):
    """A causal language model.

    Args:
        shape: its dimensions.
        encoding: a position technique; None: no positions.
        attention: an attention technique; None: dense attention.
    """

    def __init__(
        self,
        shape: DecoderShape,
        *,
        encoding: EncodingRecipe | None = None,
        attention: AttentionRecipe | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.recipes = shape, {"encoding": encoding, "attention": attention}
        self.embedding = nn.Embedding(shape.vocab_size, shape.d_model)
        self.encoding = encoding.build(shape.layer) if encoding else PositionEncoding()
        layers = [
            attention.build(shape.layer, n) if attention else SelfAttention(shape.layer)
            for n in range(shape.n_layers)
        ]
        self.blocks = nn.ModuleList(Block(shape, layer) for layer in layers)
        self.norm = RMSNorm(shape.d_model, shape.norm_eps)
        self.head = None if shape.tied else nn.Linear(shape.d_model, shape.vocab_size, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """Normal weights, 0.02 wide, those that write to the residual stream scaled by depth."""
        nn.init.normal_(self.embedding.weight, std=0.02)
        for block in self.blocks:
            for name, module in block.named_modules():
                if type(module) is not nn.Linear:
                    continue
                writes = name.endswith(("o_proj", "down_proj"))
                std = 0.02 / (2 * self.shape.n_layers) ** 0.5 if writes else 0.02
                nn.init.normal_(module.weight, std=std)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=0.02)

    def forward(
        self,
        ids: Tensor,
        *,
        pos: Tensor | None = None,
        keep: Tensor | None = None,
        state: DecodingState | None = None,
    ) -> Tensor:
        """Logits (B, T, V) of the next token after each.

        Args:
            ids: (B, T) integers.
            pos: positions, (B or 1, T) int64; None: they go on where the state ends.
            keep: (B, T) bool, False for padding.
            state: from `init_state`; the tokens are taken into it.

        Raises:
            ValueError: if a position is beyond what the encoding can tell.
        """
        return self.logits(self.hidden(ids, pos=pos, keep=keep, state=state))

    def hidden(
        self,
        ids: Tensor,
        *,
        pos: Tensor | None = None,
        keep: Tensor | None = None,
        state: DecodingState | None = None,
    ) -> Tensor:
        """The last layer's normalised output (B, T, D); arguments as of `forward`."""
        start = state.length if state else 0
        if pos is None:
            pos = torch.arange(start, start + ids.shape[1], device=ids.device)[None]
        x = self.encoding.embed(self.embedding(ids), pos)
        states: Sequence[Any] = state.layers if state else [None] * len(self.blocks)
        for n, (block, layer) in enumerate(zip(self.blocks, states, strict=True)):
            x = block(x, pos=pos, encoding=self.encoding.at(n), keep=keep, state=layer)
        if state:
            state.length += ids.shape[1]
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(B, T, D) to (B, T, V)."""
        weight = self.embedding.weight if self.head is None else self.head.weight
        return F.linear(hidden, weight.to(hidden.dtype))

    def init_state(self, batch: int, max_len: int) -> DecodingState:
        """An empty decoding state for `batch` sequences of at most `max_len` tokens."""
        layers: Any = [block.attention.init_state(batch, max_len) for block in self.blocks]
        return DecodingState(layers)

    @property
    def n_parameters(self) -> int:
        """Parameters, shared ones counted once."""
        return sum(p.numel() for p in self.parameters())

    def with_shape(self, **changes: Any) -> "Decoder":
        """A freshly initialised decoder of a changed shape."""
        return Decoder(replace(self.shape, **changes), **self.recipes)
