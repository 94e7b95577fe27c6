"""Slopes of linear penalties on distance, one for each head."""

from collections.abc import Sequence


def slopes(n_heads: int) -> Sequence[float]:
    """2^(-8h/H), h = 1..H; where H is no power of two, the authors' interpolation.

    Then come the slopes of the power of two below, and every second one of the power above.
    """
    power = 2 ** (n_heads.bit_length() - 1)
    below = [2 ** (-8 * h / power) for h in range(1, power + 1)]
    between = [2 ** (-8 * h / (2 * power)) for h in range(1, 2 * power + 1, 2)]
    return below + between[: n_heads - power]
