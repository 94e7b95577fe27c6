"""Randomized positions: a sequence in training stands at a random, sorted choice of many positions.

    s = sorted choice of n of {0, ..., L - 1};   token t stands at position s_t

n tokens of the sequence; L `stretch` times the trained length, above any length to be read. So the
positions of longer texts were all trained on. Each training pass draws anew; evaluation stands at
one choice of M, `reads` times the trained length: it does not change while a text grows. The choice
goes in front of an encoding of positions: RoPE's rotation or sinusoids.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from harness.card import Card
from impls.positions._rotary import RotaryEncoding
from impls.positions._sinusoids import SinusoidalEncoding
from impls.positions.interface import (
    Frame,
    LayerShape,
    PositionEncoding,
    PositionRecipe,
    check_range,
)

CARD = Card(
    cls="Randomized",
    title="Randomized positions",
    paper="arXiv:2305.16843",
    year=2023,
    summary="Tokens stand at random, sorted positions of a range longer than any text.",
    oracle="with stretch 1 it is the encoding that it wraps",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Randomized(PositionRecipe):
    """Randomized positional encoding."""

    encoding: Literal["rope", "sinusoidal"] = "rope"
    stretch: int = 16  # L, in trained lengths
    reads: int = 8  # M, in trained lengths; the paper draws for each text's own length
    base: float = 10_000.0
    draw_seed: int = 0

    injected_at: ClassVar = ("product",)  # sinusoids: embedding
    depends_on: ClassVar = "absolute"  # neighbours stand at gaps that differ from place to place

    def __post_init__(self) -> None:
        if not 1 <= self.reads <= self.stretch:
            raise ValueError(f"reads must be 1 to stretch {self.stretch}, got {self.reads}")
        if self.base <= 1:
            raise ValueError(f"base must be above 1, got {self.base}")
        if self.draw_seed < 0:
            raise ValueError(f"draw_seed must be at least 0, got {self.draw_seed}")

    def build(self, shape: LayerShape) -> "RandomizedEncoding":
        """The wrapped encoding.

        Raises:
            ValueError: if the width that it encodes is odd.
        """
        return RandomizedEncoding(shape, self)

    def wrapped(self, shape: LayerShape) -> PositionEncoding:
        """What encodes the drawn positions."""
        if self.encoding == "sinusoidal":
            return SinusoidalEncoding(shape.d_model, self.base, "interleaved", shape.d_model**0.5)
        if shape.d_head % 2:
            raise ValueError(f"components are turned in pairs: d_head is odd, {shape.d_head}")
        return RotaryEncoding(shape.d_head, self.base)


class RandomizedEncoding(PositionEncoding):
    """Positions are replaced by drawn ones; `embed` draws for a training pass."""

    n_draws: Tensor

    def __init__(self, shape: LayerShape, recipe: Randomized) -> None:
        super().__init__()
        self.range, self.max_len = recipe.stretch * shape.max_len, recipe.reads * shape.max_len
        self.seed, self.wrapped = recipe.draw_seed, recipe.wrapped(shape)
        self.register_buffer("n_draws", torch.zeros((), dtype=torch.int64))  # resumed with weights
        self._evaluated = self.choice(self.max_len, 0)
        self._trained = self._evaluated

    def choice(self, n: int, draw: int) -> Tensor:
        """Choice number `draw` of n sorted positions, (n,) int64; the same for the same number.

        Raises:
            ValueError: if there are fewer positions than n.
        """
        if n > self.range:
            raise ValueError(f"cannot choose {n} of {self.range} positions: raise stretch")
        drawn = torch.Generator().manual_seed(self.seed + draw)
        return torch.randperm(self.range, generator=drawn)[:n].sort().values

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        """Draw, if training; then what the wrapped encoding adds to embeddings."""
        if self.training:
            self.n_draws += 1
            self._trained = self.choice(int(pos.max()) + 1, int(self.n_draws))
        return self.wrapped.embed(x, self.drawn(pos))

    def queries(self, q: Tensor, frame: Frame) -> Tensor:
        """Queries at their drawn positions."""
        return self.wrapped.queries(q, self._framed(frame))

    def keys(self, k: Tensor, frame: Frame) -> Tensor:
        """Keys at their drawn positions."""
        return self.wrapped.keys(k, self._framed(frame))

    def drawn(self, pos: Tensor) -> Tensor:
        """The positions drawn for positions (B or 1, T).

        Raises:
            ValueError: for a position beyond the choice.
        """
        choice = self._trained if self.training else self._evaluated
        check_range(pos, len(choice), "Randomized")
        return choice.to(pos.device)[pos]

    def _framed(self, frame: Frame) -> Frame:
        return Frame(
            self.drawn(frame.q_pos),
            self.drawn(frame.k_pos),
            causal=frame.causal,
            offset=frame.offset,
            keep=frame.keep,
        )
