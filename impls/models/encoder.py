"""A bidirectional encoder with the norm behind each addition: BERT's shape, arXiv:1810.04805.

    x <- LayerNorm(x + Attention(x));   x <- LayerNorm(x + W_2 gelu(W_1 x))

Position encoding and attention plug in (`impls/models/hooks.py`); without an encoding it learns a
table of positions, as BERT does. B batch, T tokens, D model width, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impls.models.attention import SelfAttention
from impls.models.hooks import AttentionRecipe, EncodingRecipe, PositionEncoding
from impls.models.shapes import EncoderShape


class PositionTable(PositionEncoding):
    """BERT's own encoding: one learned vector for each position, added to the embeddings."""

    def __init__(self, max_len: int, d_model: int) -> None:
        super().__init__()
        self.max_len = max_len
        self.table = nn.Embedding(max_len, d_model)

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        """Token embeddings (B, T, D) plus the vectors of their positions (B or 1, T)."""
        if pos.numel() and not 0 <= int(pos.min()) <= int(pos.max()) < self.table.num_embeddings:
            raise ValueError(
                f"the table holds positions 0 to {self.table.num_embeddings - 1}, not "
                f"{int(pos.min())} to {int(pos.max())}: shorten the text or raise max_len"
            )
        return x + self.table(pos)


class EncoderBlock(nn.Module):
    """Attention and feed-forward, each followed by a residual addition and a norm."""

    def __init__(self, shape: EncoderShape, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.attention_norm = nn.LayerNorm(shape.d_model, shape.norm_eps)
        self.up_proj = nn.Linear(shape.d_model, shape.hidden)
        self.down_proj = nn.Linear(shape.hidden, shape.d_model)
        self.mlp_norm = nn.LayerNorm(shape.d_model, shape.norm_eps)

    def forward(self, x: Tensor, **where: Any) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        x = self.attention_norm(x + self.attention(x, causal=False, **where))
        return self.mlp_norm(x + self.down_proj(F.gelu(self.up_proj(x))))


class MaskedHead(nn.Module):
    """Logits from hidden states: a layer, a norm, then the token embeddings and a bias."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.d_model, shape.d_model)
        self.norm = nn.LayerNorm(shape.d_model, shape.norm_eps)
        self.bias = nn.Parameter(torch.zeros(shape.vocab_size))

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """(..., D) to (..., V), with the token embeddings (V, D)."""
        x = self.norm(F.gelu(self.dense(hidden)))
        return F.linear(x, embedding.to(x.dtype), self.bias.to(x.dtype))


class Encoder(nn.Module):
    """A masked language model.

    Args:
        shape: its dimensions.
        encoding: a position technique; None: BERT's learned table.
        attention: an attention technique; None: dense attention.
    """

    def __init__(
        self,
        shape: EncoderShape,
        *,
        encoding: EncodingRecipe | None = None,
        attention: AttentionRecipe | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.recipes = shape, {"encoding": encoding, "attention": attention}
        self.embedding = nn.Embedding(shape.vocab_size, shape.d_model)
        self.segments = nn.Embedding(shape.n_segments, shape.d_model)
        self.encoding: PositionEncoding = (
            encoding.build(shape.layer) if encoding else PositionTable(shape.max_len, shape.d_model)
        )
        self.norm = nn.LayerNorm(shape.d_model, shape.norm_eps)
        layers = [
            attention.build(shape.layer, n) if attention else SelfAttention(shape.layer, bias=True)
            for n in range(shape.n_layers)
        ]
        self.blocks = nn.ModuleList(EncoderBlock(shape, layer) for layer in layers)
        self.pooler = nn.Linear(shape.d_model, shape.d_model) if shape.pooler else None
        self.head = MaskedHead(shape) if shape.mlm_head else None
        self._initialise(own_table=encoding is None)

    def _initialise(self, *, own_table: bool) -> None:
        """Normal weights, 0.02 wide, biases 0, as BERT; a technique's encoding keeps its own."""
        parts = [self.embedding, self.segments, *self.blocks.modules()]
        parts += [self.encoding.table] if own_table else []
        parts += [self.pooler, self.head and self.head.dense]
        for module in parts:
            if type(module) in {nn.Linear, nn.Embedding}:
                nn.init.normal_(module.weight, std=0.02)
                if getattr(module, "bias", None) is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self,
        ids: Tensor,
        *,
        pos: Tensor | None = None,
        segments: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, V) of the token at each place.

        Args:
            ids: (B, T) integers.
            pos: positions, (B or 1, T) int64; None: 0 to T - 1.
            segments: which text each token belongs to, (B, T) int64; None: all to the first.
            keep: (B, T) bool, False for padding.

        Raises:
            ValueError: if a position is beyond what the encoding can tell, or there is no head.
        """
        return self.logits(self.hidden(ids, pos=pos, segments=segments, keep=keep))

    def hidden(
        self,
        ids: Tensor,
        *,
        pos: Tensor | None = None,
        segments: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        """The last layer's output (B, T, D); arguments as of `forward`."""
        pos = torch.arange(ids.shape[1], device=ids.device)[None] if pos is None else pos
        segments = torch.zeros_like(ids) if segments is None else segments
        x = self.norm(self.encoding.embed(self.embedding(ids) + self.segments(segments), pos))
        for n, block in enumerate(self.blocks):
            x = block(x, pos=pos, encoding=self.encoding.at(n), keep=keep)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., V).

        Raises:
            ValueError: if the model has no head for masked tokens.
        """
        if self.head is None:
            raise ValueError("this encoder has no masked-token head: build it with mlm_head=True")
        return self.head(hidden, self.embedding.weight)

    def pooled(self, hidden: Tensor) -> Tensor:
        """A summary of the text from its first token, tanh(W h_0), (B, T, D) to (B, D).

        Raises:
            ValueError: if the model has no pooler.
        """
        if self.pooler is None:
            raise ValueError("this encoder has no pooler: build it with pooler=True")
        return torch.tanh(self.pooler(hidden[:, 0]))

    @property
    def n_parameters(self) -> int:
        """Parameters, shared ones counted once."""
        return sum(p.numel() for p in self.parameters())
