"""Bootstrap resamples of samples taken in several process generations, and what they average to.

A resample is kept as how often it holds each sample. Counts depend on the shape of the data alone,
so they are drawn once for all metrics of a shape, and a quantile of all resamples is one cumulative
sum over the sorted samples instead of thousands of sorts. The same counts used for two sides that
took turns resample them jointly: drift that hit a round hit both.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_CELLS = 2_000_000  # of one table of counts: more samples than a thousand get fewer resamples
_FEWEST = 200

Counts = NDArray[np.uint16]


def average(samples: Sequence[float], share: float | None) -> float:
    """The quantile at `share` of the samples, or their mean (None)."""
    return float(np.mean(samples) if share is None else np.quantile(samples, share))


def averages(samples: Sequence[float], counts: Counts, share: float | None) -> NDArray[np.float64]:
    """The average of every resample."""
    values = np.asarray(samples, dtype=np.float64)
    if share is None:
        means: NDArray[np.float64] = values @ counts / counts.sum(axis=0, dtype=np.float64)
        return means
    order = np.argsort(values)
    reached = counts[order].cumsum(axis=0, dtype=np.uint32)
    place = share * (reached[-1].astype(np.float64) - 1)
    lower = _ranked(values[order], reached, np.floor(place))
    upper = _ranked(values[order], reached, np.ceil(place))
    quantiles: NDArray[np.float64] = lower + (place - np.floor(place)) * (upper - lower)
    return quantiles


@lru_cache(maxsize=32)
def rounds(n: int, resamples: int, seed: tuple[int, ...]) -> Counts:
    """How often each of `n` rounds (rows) is in each resample (columns)."""
    resamples = max(_FEWEST, min(resamples, _CELLS // n))
    drawn = np.random.default_rng((*seed, n)).integers(n, size=(resamples, n))
    flat = drawn + n * np.arange(resamples)[:, None]
    counts = np.bincount(flat.ravel(), minlength=resamples * n).reshape(resamples, n)
    return np.ascontiguousarray(counts.T.astype(np.uint16))


@lru_cache(maxsize=32)
def generations(sizes: tuple[int, ...], seed: tuple[int, ...]) -> Counts:
    """The same where whole process generations are drawn, each with all its rounds.

    Few resamples: they are for a standard deviation, not for quantiles.
    """
    n = len(sizes)
    drawn = np.random.default_rng((*seed, *sizes)).multinomial(n, np.full(n, 1 / n), 2 * _FEWEST)
    return np.repeat(drawn.T.astype(np.uint16), sizes, axis=0)


def _ranked(
    ordered: NDArray[np.float64], reached: NDArray[np.uint32], rank: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The value of a rank, from 0, in every resample."""
    position = (reached <= rank.astype(np.uint32)).sum(axis=0)
    values: NDArray[np.float64] = ordered[position]
    return values
