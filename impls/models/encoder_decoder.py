"""An encoder-decoder with the norm before each sublayer: T5's shape, arXiv:1910.10683.

    encoder  x <- x + Attention(N(x));  x <- x + MLP(N(x))
    decoder  y <- y + Attention(N(y));  y <- y + Cross(N(y), x);  y <- y + MLP(N(y))

N is RMSNorm. Position encoding and attention plug in (`impls/models/hooks.py`), one encoding for
each of the two stacks; the factor of the scores is the encoding's, also across (T5's is 1).
B batch, S tokens of the encoder, T of the decoder, D model width, V vocabulary.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impls.models.hooks import AttentionRecipe, EncodingRecipe
from impls.models.shapes import EncoderDecoderShape
from impls.models.stack import Memory, Stack


@dataclass
class GenerationState:
    """What decoding keeps: of the encoder once, of the decoder's tokens so far layer by layer."""

    memories: list[Memory]
    layers: list[Any]
    length: int = field(default=0)


class EncoderDecoder(nn.Module):
    """A sequence-to-sequence model.

    Args:
        shape: its dimensions.
        encoding: a position technique, built for each stack; None: no positions.
        attention: an attention technique for both stacks; None: dense attention.
    """

    def __init__(
        self,
        shape: EncoderDecoderShape,
        *,
        encoding: EncodingRecipe | None = None,
        attention: AttentionRecipe | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.recipes = shape, {"encoding": encoding, "attention": attention}
        self.embedding = nn.Embedding(shape.vocab_size, shape.d_model)
        self.encoder = Stack(shape, shape.encoder_layer, encoding, attention)
        self.decoder = Stack(shape, shape.decoder_layer, encoding, attention)
        self.head = None if shape.tied else nn.Linear(shape.d_model, shape.vocab_size, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """T5's widths: every layer keeps unit variance, queries give scores of unit variance."""
        nn.init.normal_(self.embedding.weight)
        for stack in (self.encoder, self.decoder):
            layer = self.shape.decoder_layer
            scale = stack.encoding.scale(layer.d_head)
            for name, module in stack.blocks.named_modules():
                if type(module) is nn.Linear:
                    std = module.in_features**-0.5
                    if name.endswith("q_proj"):
                        std *= layer.d_head**-0.5 / scale
                    nn.init.normal_(module.weight, std=std)

    def forward(
        self,
        ids: Tensor,
        decoder_ids: Tensor,
        *,
        keep: Tensor | None = None,
        decoder_keep: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, V) of the next token after each of the decoder's.

        Args:
            ids: what the encoder reads, (B, S) integers.
            decoder_ids: what the decoder has so far, (B, T) integers.
            keep: (B, S) bool, False for padding.
            decoder_keep: (B, T) bool, False for padding.

        Raises:
            ValueError: if a position is beyond what the encoding can tell.
        """
        memories = self.memories(self.encode(ids, keep=keep), keep)
        x = self.decoder(
            self.embedding(decoder_ids), _positions(decoder_ids), decoder_keep, memories=memories
        )
        return self.logits(x)

    def encode(self, ids: Tensor, *, keep: Tensor | None = None) -> Tensor:
        """The encoder's normalised output (B, S, D)."""
        return self.encoder(self.embedding(ids), _positions(ids), keep)

    def memories(self, encoded: Tensor, keep: Tensor | None = None) -> list[Memory]:
        """What each decoder layer reads of the encoder's output (B, S, D)."""
        return [block.cross.memory(encoded, keep) for block in self.decoder.blocks]

    def init_state(self, ids: Tensor, max_len: int, *, keep: Tensor | None = None) -> Any:
        """A decoding state for at most `max_len` decoder tokens, the encoder's text (B, S) read."""
        layers = [b.attention.init_state(len(ids), max_len) for b in self.decoder.blocks]
        return GenerationState(self.memories(self.encode(ids, keep=keep), keep), layers)

    def step(self, decoder_ids: Tensor, state: GenerationState) -> Tensor:
        """Logits (B, T, V) after T more decoder tokens, which the state takes in."""
        x = self.decoder(
            self.embedding(decoder_ids),
            _positions(decoder_ids, state.length),
            None,
            memories=state.memories,
            states=state.layers,
        )
        state.length += decoder_ids.shape[1]
        return self.logits(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(B, T, D) to (B, T, V)."""
        if self.head is not None:
            return self.head(hidden)
        return F.linear(hidden * self.shape.d_model**-0.5, self.embedding.weight.to(hidden.dtype))

    @property
    def n_parameters(self) -> int:
        """Parameters, shared ones counted once."""
        return sum(p.numel() for p in self.parameters())


def _positions(ids: Tensor, start: int = 0) -> Tensor:
    return torch.arange(start, start + ids.shape[1], device=ids.device)[None]
