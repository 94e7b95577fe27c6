"""How a cost grows with a length: its exponent, and the length from which it is the smaller one."""

from collections.abc import Sequence
from itertools import pairwise
from math import exp, log


def slope(lengths: Sequence[float], costs: Sequence[float]) -> float:
    """Exponent of the cost over the length between the last two points."""
    return log(costs[-1] / costs[-2]) / log(lengths[-1] / lengths[-2])


def crossover(
    lengths: Sequence[int], ours: Sequence[float], dense: Sequence[float]
) -> float | None:
    """Length from which ours is faster up to the largest, between two lengths by log-log lines."""
    gaps = [log(a / b) for a, b in zip(ours, dense, strict=True)]
    if gaps[-1] >= 0:
        return None
    points = list(zip(lengths, gaps, strict=True))
    for (n, gap), (later, below) in reversed(list(pairwise(points))):
        if gap >= 0:
            share = gap / (gap - below)
            return exp(log(n) + share * (log(later) - log(n)))
    return float(lengths[0])
