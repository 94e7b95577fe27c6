"""How far a candidate's samples lie from a baseline's: log ratio or difference, interval, p value.

Rounds are resampled for the shape of the distribution. Samples of one process share its memory
layout and its luck, so whole process generations are resampled too, and where these spread wider
than rounds explain the interval widens by as much. Resampling both at once (generations, then the
rounds of each) would count the rounds' spread twice: 1.3 times too wide where processes do not
differ. What few generations or samples say of a spread is itself uncertain, so the interval is
widened as Student's t widens the normal's, with degrees of freedom by Satterthwaite.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from harness.bootstrap import Counts, average, averages, generations, rounds

Scale = Literal["ratio", "difference"]

# A quantile of the resamples needs so many of them beyond it; further out the tail of a normal
# distribution with the resamples' spread stands in.
_BEYOND = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One side's samples and how many each process generation gave."""

    samples: list[float]
    generations: list[int]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Samples of each generation; what must be equal for samples to be paired."""
        return tuple(self.generations) or (len(self.samples),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """Candidate against baseline where no change is 0: a log ratio, or a difference."""

    baseline: float
    candidate: float
    scale: Scale
    value: float
    draws: NDArray[np.float64]  # of `value`, one a resample of rounds
    excess: float  # variance between generations over that which rounds explain, at least 1
    n: int  # samples of the smaller side
    n_generations: int

    def interval(self, z: float) -> tuple[float, float]:
        """So many standard errors to both sides."""
        draws, tail = self._widened(z), float(ndtr(-z))
        if tail * draws.size >= _BEYOND:
            low, high = np.quantile(draws, (tail, 1 - tail))
            return float(low), float(high)
        reach = z * float(draws.std())
        return self.value - reach, self.value + reach

    def p(self, margin: float, z: float) -> float:
        """Two-sided, that the truth is within the margin; read where `interval` is read."""
        draws, away = self._widened(z), abs(self.value) - margin
        spread = float(draws.std())
        normal = float(ndtr(-away / spread)) if spread else float(away <= 0)
        if float(ndtr(-z)) * draws.size < _BEYOND:
            return min(1.0, 2 * normal)
        within = float(((draws <= margin) if self.value > 0 else (draws >= -margin)).mean())
        resolution = _BEYOND / draws.size
        return min(1.0, 2 * (within if within >= resolution else min(normal, resolution)))

    def _widened(self, z: float) -> NDArray[np.float64]:
        between = 1 - 1 / self.excess  # of the variance, the share only generations show
        freedom = 1 / (
            (1 - between) ** 2 / (self.n - 1) + between**2 / max(1, self.n_generations - 1)
        )
        student = float(stdtrit(freedom, ndtr(z))) / z
        factor = student * math.sqrt(self.excess * self.n / (self.n - 1))
        return self.value + factor * (self.draws - self.value)


def effect_of(
    baseline: Side, candidate: Side, share: float | None, *, joint: bool, resamples: int, seed: int
) -> Effect:
    """Compare the averages (quantile at `share`, or mean) of the two sides.

    Joint resamples hold the same rounds of both sides; these must be of the same sizes. The scale
    is a ratio where all resamples of both sides are positive.
    """
    sides, streams = (baseline, candidate), ((seed, 0), (seed, 0 if joint else 1))
    fewest = min(len(side.samples) for side in sides)
    tables = [
        rounds(len(side.samples), resamples, stream)
        for side, stream in zip(sides, streams, strict=True)
    ]
    by_round = _drawn(sides, tables, share)
    whole = [generations(side.sizes, stream) for side, stream in zip(sides, streams, strict=True)]
    by_generation = _drawn(sides, whole, share)
    x, y = (average(side.samples, share) for side in sides)
    drawn = np.concatenate([*by_round, *by_generation])
    scale: Scale = "ratio" if min(x, y, drawn.min()) > 0 else "difference"
    draws = _shift(*by_round, scale)
    n_generations = min(len(side.sizes) for side in sides)
    return Effect(
        baseline=x, candidate=y, scale=scale, value=float(_shift(x, y, scale)), draws=draws,
        excess=_excess(draws, _shift(*by_generation, scale), fewest, n_generations),
        n=fewest, n_generations=n_generations,
    )  # fmt: skip


def _drawn(
    sides: tuple[Side, Side], tables: list[Counts], share: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    before, after = (
        averages(side.samples, table, share) for side, table in zip(sides, tables, strict=True)
    )
    both = min(before.size, after.size)  # a side with many samples has fewer resamples
    return before[:both], after[:both]


def _shift(before: Any, after: Any, scale: Scale) -> Any:
    return np.log(after / before) if scale == "ratio" else after - before


def _excess(
    by_round: NDArray[np.float64], by_generation: NDArray[np.float64], n: int, n_generations: int
) -> float:
    """Ratio of the two variances, each without the bootstrap's bias of (n - 1) / n."""
    explained = float(by_round.var()) * n / (n - 1)
    if not explained or n_generations in (1, n):
        return 1.0
    seen = float(by_generation.var()) * n_generations / (n_generations - 1)
    return max(1.0, seen / explained)
