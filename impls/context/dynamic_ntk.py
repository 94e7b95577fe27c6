"""Dynamic NTK: the base grows with the text read so far, and cached keys keep the base they had.

    b' = b (s T / L - (s - 1))^(d/(d-2)),  T > L;   b' = b,  T <= L

T tokens so far, L trained length, s the factor, b base, d rotary width. In one pass all keys turn
by the base of the whole length; through a cache each key keeps the base of the moment it was read,
and the two answers differ. Most deployments are so; `context/consistent_dynamic` mends it.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from harness.card import Card
from impls.context._frequencies import check_factor, dynamic_scale, ntk
from impls.context.interface import FrequencyRecipe, RopeShape, scale_of

CARD = Card(
    cls="DynamicNTK",
    title="Dynamic NTK",
    paper="arXiv:2309.00071",
    year=2023,
    summary="NTK-aware scaling by the length so far; cached keys keep the base they had.",
    oracle="transformers' rope_type dynamic, with its gap between one pass and the cache",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DynamicNTK(FrequencyRecipe):
    """Dynamic NTK-aware scaling with a cache of rotated keys."""

    factor: float | None = None  # s; None: target length / trained length

    exact_decoding: ClassVar = False
    unchanged_within: ClassVar = True

    def __post_init__(self) -> None:
        check_factor(self.factor)

    def frequencies(self, rope: RopeShape, *, target_len: int, length: int) -> tuple[Tensor, float]:
        """The frequencies at this length."""
        scale = scale_of(self.factor, rope.train_len, target_len)
        return ntk(rope, dynamic_scale(scale, rope, length)), 1.0
