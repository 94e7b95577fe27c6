"""The layers of an encoder-decoder: T5's blocks, with and without cross attention.

B batch, S tokens of the encoder, T of either, D model width, H heads, d head width.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from impls.models.attention import Dense, SelfAttention
from impls.models.decoder import RMSNorm
from impls.models.hooks import AttentionRecipe, EncodingRecipe, LayerShape, PositionEncoding
from impls.models.shapes import EncoderDecoderShape


class FeedForward(nn.Module):
    """W_2 relu(W_1 x), or W_2(gelu(W_1 x) * W_3 x) with T5's tanh form of gelu."""

    def __init__(self, shape: EncoderDecoderShape) -> None:
        super().__init__()
        gated = shape.activation == "gated-gelu"
        self.up_proj = nn.Linear(shape.d_model, shape.hidden, bias=False)
        self.gate_proj = nn.Linear(shape.d_model, shape.hidden, bias=False) if gated else None
        self.down_proj = nn.Linear(shape.hidden, shape.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        if self.gate_proj is None:
            return self.down_proj(F.relu(self.up_proj(x)))
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class Memory(NamedTuple):
    """What one decoder layer reads of the encoder: keys and values (B, H, S, d), padding (B, S)."""

    k: Tensor
    v: Tensor
    keep: Tensor | None


class CrossAttention(nn.Module):
    """Decoder tokens read encoder tokens."""

    def __init__(self, shape: LayerShape) -> None:
        super().__init__()
        self.d_head, self.kernel = shape.d_head, Dense()
        width = shape.n_heads * shape.d_head
        self.q_proj, self.k_proj, self.v_proj = (
            nn.Linear(shape.d_model, width, bias=False) for _ in range(3)
        )
        self.o_proj = nn.Linear(width, shape.d_model, bias=False)

    def memory(self, encoded: Tensor, keep: Tensor | None) -> Memory:
        """Keys and values of the encoder's output (B, S, D)."""
        return Memory(self._heads(self.k_proj(encoded)), self._heads(self.v_proj(encoded)), keep)

    def forward(self, x: Tensor, memory: Memory, scale: float) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        q = self._heads(self.q_proj(x))
        y = self.kernel.attend(q, memory.k, memory.v, causal=False, keep=memory.keep, scale=scale)
        return self.o_proj(y.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.d_head)).transpose(1, 2)


class StackBlock(nn.Module):
    """Self-attention, cross attention where the block is a decoder's, and feed-forward."""

    def __init__(self, shape: EncoderDecoderShape, attention: nn.Module, *, cross: bool) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(shape.d_model, shape.norm_eps)
        self.attention = attention
        if cross:
            self.cross_norm = RMSNorm(shape.d_model, shape.norm_eps)
            self.cross = CrossAttention(shape.decoder_layer)
        self.mlp_norm = RMSNorm(shape.d_model, shape.norm_eps)
        self.mlp = FeedForward(shape)

    def forward(self, x: Tensor, memory: Memory | None = None, **where: Any) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        x = x + self.attention(self.attention_norm(x), **where)
        if memory is not None:
            scale = where["encoding"].scale(self.cross.d_head)
            x = x + self.cross(self.cross_norm(x), memory, scale)
        return x + self.mlp(self.mlp_norm(x))


class Stack(nn.Module):
    """The encoder's or the decoder's layers, with their position encoding."""

    def __init__(
        self,
        shape: EncoderDecoderShape,
        layer: LayerShape,
        encoding: EncodingRecipe | None,
        attention: AttentionRecipe | None,
    ) -> None:
        super().__init__()
        self.causal = layer.causal
        self.encoding = encoding.build(layer) if encoding else PositionEncoding()
        self.blocks = nn.ModuleList(
            StackBlock(
                shape,
                attention.build(layer, n) if attention else SelfAttention(layer),
                cross=layer.causal,
            )
            for n in range(layer.n_layers)
        )
        self.norm = RMSNorm(shape.d_model, shape.norm_eps)

    def forward(
        self,
        x: Tensor,
        pos: Tensor,
        keep: Tensor | None,
        *,
        memories: Sequence[Memory | None] | None = None,
        states: Sequence[Any] | None = None,
    ) -> Tensor:
        """Token embeddings (B, T, D) to normalised outputs (B, T, D)."""
        x = self.encoding.embed(x, pos)
        memories, states = (s or [None] * len(self.blocks) for s in (memories, states))
        for n, (block, memory, state) in enumerate(zip(self.blocks, memories, states, strict=True)):
            where = {"pos": pos, "encoding": self.encoding.at(n), "keep": keep, "state": state}
            x = block(x, memory, causal=self.causal, **where)
        return self.norm(x)
