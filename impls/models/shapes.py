"""The dimensions of the models, with defaults that train in minutes on a CPU; sizes by name."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from impls.models.hooks import LayerShape


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderShape:
    """Every dimension of a decoder."""

    vocab_size: int = 256
    d_model: int = 128
    n_layers: int = 5
    n_heads: int = 4
    n_kv_heads: int | None = None  # None: as many as n_heads
    d_head: int | None = None  # None: d_model / n_heads
    d_ff: int | None = None  # None: 8/3 d_model, up to a multiple of 16
    max_len: int = 512  # the length trained on
    tied: bool = True  # the head is the embedding
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "max_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.d_head is None and self.d_model % self.n_heads:
            raise ValueError(
                f"d_model {self.d_model} is no multiple of n_heads {self.n_heads}: set d_head"
            )
        self.layer  # noqa: B018 - checks the heads

    @property
    def layer(self) -> LayerShape:
        """What its encoding and attention layers have to fit."""
        return LayerShape(
            d_model=self.d_model,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads or self.n_heads,
            d_head=self.d_head or self.d_model // self.n_heads,
            n_layers=self.n_layers,
            max_len=self.max_len,
        )

    @property
    def hidden(self) -> int:
        """Width of the feed-forward layer."""
        return self.d_ff or -(-8 * self.d_model // 48) * 16


# Sizes by name, about the parameters their name says with a vocabulary of bytes.
SIZES: Mapping[str, Mapping[str, int]] = {
    "120k": {"d_model": 64, "n_layers": 2, "n_heads": 4},
    "150k": {"d_model": 64, "n_layers": 3, "n_heads": 4},
    "400k": {"d_model": 96, "n_layers": 4, "n_heads": 4},
    "1m": {"d_model": 128, "n_layers": 5, "n_heads": 4},
    "3m": {"d_model": 192, "n_layers": 7, "n_heads": 6},
    "10m": {"d_model": 320, "n_layers": 8, "n_heads": 8},
}


def sized(size: str, **changes: Any) -> DecoderShape:
    """The shape of a size by name, any dimension changed.

    Raises:
        ValueError: for an unknown size.
    """
    if size not in SIZES:
        raise ValueError(f"no decoder has size {size!r}: choose one of {', '.join(SIZES)}")
    return DecoderShape(**{**SIZES[size], **changes})


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderShape:
    """Every dimension of an encoder."""

    vocab_size: int = 257  # bytes and a mask
    d_model: int = 128
    n_layers: int = 5
    n_heads: int = 4
    d_ff: int | None = None  # None: 4 d_model
    max_len: int = 512  # the length trained on, and the size of BERT's table of positions
    n_segments: int = 2
    norm_eps: float = 1e-12
    pooler: bool = False  # a layer on the first token, for sentence-level tasks
    mlm_head: bool = True  # logits for masked tokens; some checkpoints come without

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "max_len", "n_segments"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is no multiple of n_heads {self.n_heads}")

    @property
    def layer(self) -> LayerShape:
        """What its encoding and attention layers have to fit."""
        return LayerShape(
            d_model=self.d_model,
            n_heads=self.n_heads,
            n_kv_heads=self.n_heads,
            d_head=self.d_model // self.n_heads,
            n_layers=self.n_layers,
            max_len=self.max_len,
            causal=False,
        )

    @property
    def hidden(self) -> int:
        """Width of the feed-forward layer."""
        return self.d_ff or 4 * self.d_model


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderDecoderShape:
    """Every dimension of an encoder-decoder."""

    vocab_size: int = 288  # bytes, a start, 31 sentinels
    d_model: int = 128
    n_encoder_layers: int = 3
    n_decoder_layers: int = 3
    n_heads: int = 4
    d_head: int | None = None  # None: d_model / n_heads
    d_ff: int | None = None  # None: 4 d_model
    activation: Literal["relu", "gated-gelu"] = "gated-gelu"  # T5's first version: relu
    max_len: int = 512  # the length trained on
    tied: bool = True  # the head is the embedding, its input scaled by d_model^(-1/2)
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "n_encoder_layers", "n_decoder_layers", "n_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.d_head is None and self.d_model % self.n_heads:
            raise ValueError(
                f"d_model {self.d_model} is no multiple of n_heads {self.n_heads}: set d_head"
            )
        self.decoder_layer  # noqa: B018 - checks the heads

    @property
    def decoder_layer(self) -> LayerShape:
        """What the decoder's encoding and attention layers have to fit."""
        return LayerShape(
            d_model=self.d_model,
            n_heads=self.n_heads,
            n_kv_heads=self.n_heads,
            d_head=self.d_head or self.d_model // self.n_heads,
            n_layers=self.n_decoder_layers,
            max_len=self.max_len,
        )

    @property
    def encoder_layer(self) -> LayerShape:
        """What the encoder's encoding and attention layers have to fit."""
        return replace(self.decoder_layer, n_layers=self.n_encoder_layers, causal=False)

    @property
    def hidden(self) -> int:
        """Width of the feed-forward layer."""
        return self.d_ff or 4 * self.d_model
