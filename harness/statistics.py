"""Estimates with seeded bootstrap intervals: medians of times and sizes, means of losses and rates.

A bootstrap resample of n values is n uniform numbers U, each picking the value of rank floor(n U).
Ranks keep the order of U, so the resampled median needs only the middle order statistics of U:

    U_(k) ~ Beta(k, n + 1 - k),     1 - U_(k+1) = (1 - U_(k)) (1 - V),  V ~ Beta(1, n - k)

Drawing those two directly gives the percentile bootstrap of `scipy.stats.bootstrap` in
distribution, without sorting thousands of resamples, at a cost that does not grow with n.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.card import Average

RESAMPLES = 2_000
LEVEL = 0.95
MIN_SAMPLES = 3  # fewer say nothing about their own spread
_NUMERATOR, _DENOMINATOR = 0, 1  # seeds of the two independent streams


class Estimate(NamedTuple):
    """A value and its 95 % interval; no interval where there are too few samples for one."""

    value: float
    low: float | None
    high: float | None


def summarise(samples: Sequence[float], average: Average = "median") -> Estimate:
    """The average of finite samples with its bootstrap interval; the same for the same samples.

    Raises:
        ValueError: if there are no samples.
    """
    values = _sorted(samples)
    value = _average(values, average)
    if values.size < MIN_SAMPLES:
        return Estimate(value, None, None)
    return Estimate(value, *_interval(_resampled(values, _NUMERATOR, average)))


def ratio(
    numerator: Sequence[float], denominator: Sequence[float], average: Average = "median"
) -> Estimate:
    """Ratio of the averages of two independently sampled quantities.

    The interval is left out where either side has too few samples, or where the denominator's
    resampled averages reach zero, since the ratio then has no bounds.

    Raises:
        ValueError: if either has no samples or the denominator's average is 0.
    """
    above, below = _sorted(numerator), _sorted(denominator)
    middle = _average(below, average)
    if middle == 0:
        raise ValueError(
            f"the denominator's {average} is 0: report the difference instead of a ratio"
        )
    value = _average(above, average) / middle
    if min(above.size, below.size) < MIN_SAMPLES:
        return Estimate(value, None, None)
    divisors = _resampled(below, _DENOMINATOR, average)
    if (divisors * middle <= 0).any():
        return Estimate(value, None, None)
    return Estimate(value, *_interval(_resampled(above, _NUMERATOR, average) / divisors))


def _sorted(samples: Sequence[float]) -> NDArray[np.float64]:
    values = np.sort(np.asarray(samples, dtype=np.float64))
    if not values.size:
        raise ValueError("need at least 1 sample, got 0: a cell without samples has no value")
    return values


def _median(values: NDArray[np.float64]) -> float:
    return float(values[(values.size - 1) // 2] + values[values.size // 2]) / 2


def _average(values: NDArray[np.float64], average: Average) -> float:
    return float(values.mean()) if average == "mean" else _median(values)


def _interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, (tail, 1 - tail))
    return float(low), float(high)


def _resampled(values: NDArray[np.float64], stream: int, average: Average) -> NDArray[np.float64]:
    if average == "median":
        return _resampled_medians(values, stream)
    rng = np.random.default_rng((stream, values.size))
    counts = rng.multinomial(values.size, np.full(values.size, 1 / values.size), RESAMPLES)
    means: NDArray[np.float64] = counts @ values / values.size
    return means


def _resampled_medians(values: NDArray[np.float64], stream: int) -> NDArray[np.float64]:
    lower, upper = _middle_ranks(values.size, stream)
    return (values[lower] + values[upper]) / 2


@lru_cache(maxsize=256)
def _middle_ranks(n: int, stream: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Ranks, from 0, of the two values whose mean is the median of each resample of n."""
    rng = np.random.default_rng((stream, n))
    k = (n + 1) // 2
    u = rng.beta(k, n + 1 - k, RESAMPLES)
    lower = np.minimum((n * u).astype(np.intp), n - 1)
    if n % 2:
        return lower, lower
    above = u + (1 - u) * rng.beta(1, n - k, RESAMPLES)
    return lower, np.minimum((n * above).astype(np.intp), n - 1)
