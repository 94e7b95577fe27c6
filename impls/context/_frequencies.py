"""Frequencies that several rules start from. d rotary width, b base, s scale, L trained length."""

import math

import torch
from torch import Tensor

from impls.context._rescaled import RopeShape
from impls.positions._rotary import inverse_frequencies


def ntk(rope: RopeShape, scale: float) -> Tensor:
    """Theta of base b s^(d/(d-2)), (d/2,) float64: the first as trained, the last divided by s."""
    if rope.d == 2:  # one frequency, which is the first and the last
        return rope.theta
    return inverse_frequencies(rope.d, rope.base * scale ** (rope.d / (rope.d - 2)))


def dynamic_scale(scale: float, rope: RopeShape, length: float) -> float:
    """S T/L - (s - 1), T tokens so far; 1 up to L."""
    return max(1.0, scale * length / rope.train_len - (scale - 1))


def by_parts(rope: RopeShape, beta_fast: float, beta_slow: float, *, truncate: bool) -> Tensor:
    """Share of interpolation of each frequency, (d/2,) float64, 0 to 1.

    0 for pairs that turn more than `beta_fast` times over L, 1 for less than `beta_slow` times.
    """

    def pair(rotations: float) -> float:
        """The pair, as a real number, that turns this many times over L."""
        turns = rope.train_len / (2 * math.pi * rotations)
        return rope.d * math.log(turns) / (2 * math.log(rope.base))

    low, high = pair(beta_fast), pair(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.d - 1)
    if low == high:
        high += 0.001  # a step, not a division by zero
    return ((torch.arange(rope.d // 2, dtype=torch.float64) - low) / (high - low)).clamp(0, 1)


def check_factor(factor: float | None, name: str = "factor") -> None:
    """Refuse a factor that would shorten the context.

    Raises:
        ValueError: naming the factor.
    """
    if factor is not None and not factor >= 1:
        raise ValueError(
            f"{name} must be at least 1 or None (target / trained length), got {factor}"
        )
