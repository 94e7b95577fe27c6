"""Where a cell's metric stepped in a series of runs: change points of its logarithm.

Candidates are those of PELT (Killick, 2012) with the mean of each segment, by `ruptures`; one stays
if its two segments differ by more than the margin and a t test finds it at 0.001, as Hunter
(Fleming and others, 2023) does. The p value is that of the test, not of having searched for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import ruptures
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.special import stdtr

from harness.verdict import Rule

P_STEP = 0.001
_SHORTEST = (
    3  # runs of a segment: two neighbouring outliers are no step, so one is seen at its third
)
_LASTING = 5  # runs of a segment that has ended: a shorter one was the machine's mood
_PENALTY = 5.0  # times the variance and log n; BIC's is 3, and one series in fifty then steps
_OUTLIER = 3.0  # standard deviations from the median of a run's neighbours, where it is cut off


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A lasting change of level."""

    index: int  # of the first value at the new level
    before: float  # medians of the stretches between steps
    after: float
    ratio: float
    p: float


def change_points(values: Sequence[float], rule: Rule) -> list[Step]:
    """The steps of a series in time order, earliest first; none where a value is not positive."""
    if len(values) < 2 * _SHORTEST or min(values) <= 0:
        return []
    logs = np.log(np.asarray(values, dtype=np.float64))
    noise = _noise(logs)
    middle = median_filter(logs, size=7, mode="nearest")
    calm = np.clip(logs, middle - _OUTLIER * noise, middle + _OUTLIER * noise)
    edges = _edges(calm, noise)
    while steps := [_step(calm, values, *edges[i : i + 3]) for i in range(len(edges) - 2)]:
        brief = {edges[i] for i in range(1, len(edges) - 2) if edges[i + 1] - edges[i] < _LASTING}
        small = {s.index for s in steps if abs(np.log(s.ratio)) <= np.log1p(rule.margin)}
        weak = [s for s in steps if s.p > P_STEP or s.index in brief | small]
        if not weak:
            break
        edges.remove(max(weak, key=lambda step: step.p).index)
    return steps


def _noise(logs: NDArray[np.float64]) -> float:
    """Standard deviation from neighbour to neighbour, which a few steps do not touch."""
    return 1.4826 * float(np.median(np.abs(np.diff(logs)))) / 2**0.5


def _edges(logs: NDArray[np.float64], noise: float) -> list[int]:
    """Where segments begin, and the end."""
    search = ruptures.KernelCPD(kernel="linear", min_size=_SHORTEST).fit(logs[:, None])
    smallest = 1e-12  # a series that repeats itself exactly still steps
    penalty = max(smallest, _PENALTY * noise**2 * np.log(len(logs)))
    return [0, *map(int, search.predict(pen=penalty))]


def _step(
    calm: NDArray[np.float64], values: Sequence[float], start: int, index: int, end: int
) -> Step:
    before, after = (float(np.median(part)) for part in (values[start:index], values[index:end]))
    return Step(
        index=index,
        before=before,
        after=after,
        ratio=after / before,
        p=_t_test(calm[start:index], calm[index:end]),
    )


def _t_test(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Student's, two-sided; segments without any spread differ if their means do."""
    n, m = len(one), len(other)
    distance = abs(float(one.mean() - other.mean()))
    variance = float(one.var() * n + other.var() * m) / (n + m - 2)
    if not variance:
        return float(not distance)
    return 2 * float(stdtr(n + m - 2, -distance / (variance * (1 / n + 1 / m)) ** 0.5))
