"""YaRN: interpolates only the frequencies that turn too seldom over the trained length.

    theta'_i = (1 - g_i) theta_i + g_i theta_i / s,   g_i = ramp of the turns L theta_i / 2 pi
               from 0 at beta_fast turns to 1 at beta_slow
    q'.k' -> (0.1 ln s + 1)^2 q'.k'

L trained length, s target length over it. A pair that turns often tells near distances apart and is
left alone; one that turns less than once would be beyond all it has seen, and is interpolated.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from harness.card import Card
from impls.context._frequencies import by_parts, check_factor
from impls.context.interface import FrequencyRecipe, RopeShape, scale_of

CARD = Card(
    cls="YaRN",
    title="YaRN",
    paper="arXiv:2309.00071",
    year=2023,
    summary="Interpolates low frequencies, keeps high ones, and sharpens attention.",
    oracle="transformers' rope_type yarn",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class YaRN(FrequencyRecipe):
    """Yet another RoPE extension."""

    factor: float | None = None  # s; None: target length / trained length
    beta_fast: float = 32.0  # turns over the trained length, from which a pair is left alone
    beta_slow: float = 1.0  # turns up to which it is wholly interpolated
    truncate: bool = True  # the ends of the ramp are whole pairs
    attention_factor: float | None = None  # of queries and of keys; None: 0.1 ln s + 1

    def __post_init__(self) -> None:
        check_factor(self.factor)
        if not self.beta_fast > self.beta_slow > 0:
            raise ValueError(
                f"need beta_fast > beta_slow > 0, got {self.beta_fast} and {self.beta_slow}"
            )
        if self.attention_factor is not None and self.attention_factor <= 0:
            raise ValueError(f"attention_factor must be above 0, got {self.attention_factor}")

    def frequencies(self, rope: RopeShape, *, target_len: int, length: int) -> tuple[Tensor, float]:
        """Frequencies by parts, and the factor that sharpens attention."""
        scale = scale_of(self.factor, rope.train_len, target_len)
        share = by_parts(rope, self.beta_fast, self.beta_slow, truncate=self.truncate)
        theta = (1 - share) * rope.theta + share * rope.theta / scale
        factor = self.attention_factor
        return theta, 0.1 * math.log(scale) + 1 if factor is None else factor
