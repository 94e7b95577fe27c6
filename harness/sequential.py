"""Looking at a measurement while it runs: stop when resolved, without more false alarms for it.

Every look spends a part of the chance of a false alarm; the parts add up to 1 - level. The first
look is at four process generations, since fewer hardly show how far processes of the same code
differ, and early looks spend less (Kim and DeMets, 1987): there only large changes stop it.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

from harness.errors import UsageError
from harness.record import Quantity
from harness.verdict import Change, Rule, judge

_FIRST = 4  # generations
# A power of the share of generations seen is the share of the chance spent. 1 is about Pocock's
# bounds, 3 O'Brien and Fleming's. In simulations (tests/harness/test_sequential.py), 2 finds +5 %
# two rounds earlier than 3 and is as sharp at the end; 1 loses 3 % of such finds under more noise.
_POWER = 2
_GRID = 601  # borders of the density's bins: bounds to three digits


@dataclass(frozen=True, kw_only=True, slots=True)
class Looks:
    """When a measurement is looked at, in process generations."""

    n: int = 7  # at most: no two looks at the same generation
    level: float = 0.95  # over all looks together; that of the rule
    generations: int = 10  # at the last look

    def __post_init__(self) -> None:
        if min(self.n, self.generations) < 1:
            raise UsageError(
                f"looks and generations must be at least 1, got {self.n} and {self.generations}"
            )
        if not 0 < self.level < 1:
            raise UsageError(f"level must be between 0 and 1, got {self.level}")

    @property
    def places(self) -> tuple[int, ...]:
        """The generations after which to look."""
        return _places(self.n, self.generations)

    def z(self, look: int) -> float:
        """Half-width of the interval at a look (from 1), in standard errors."""
        return _bounds(self.places, self.level)[look - 1]

    def after(self, generations: int) -> int:
        """The latest look that so many generations allow, and the first for fewer."""
        return max(1, sum(place <= generations for place in self.places))

    def due(self, generations: int) -> bool:
        """Whether it is time for a look."""
        return generations in self.places


def judge_at(
    baseline: Quantity,
    candidate: Quantity,
    look: int,
    looks: Looks,
    rule: Rule,
    *,
    paired: bool = True,
) -> Change:
    """The verdict at a look; anything but unresolved is final, and measuring may stop."""
    return judge(baseline, candidate, rule, paired=paired, z=looks.z(look))


@lru_cache(maxsize=32)
def _places(n: int, last: int) -> tuple[int, ...]:
    """Evenly from the first to the last."""
    if n == 1 or last <= _FIRST:
        return (last,)
    return tuple(sorted({round(place) for place in np.linspace(_FIRST, last, n)}))


@lru_cache(maxsize=32)
def _bounds(places: tuple[int, ...], level: float) -> tuple[float, ...]:
    """How far from 0 a random walk without drift is stopped, in its standard deviations.

    The density of walks not yet stopped is carried from look to look (Armitage, McPherson and
    Rowe, 1969); each bound lets through what its look may spend.
    """
    share = np.array(places) / places[-1]
    spends = np.diff((1 - level) * share**_POWER, prepend=0)
    steps = np.sqrt(np.diff(share, prepend=0))
    at, weight = np.zeros(1), np.ones(1)
    bounds: list[float] = []
    for seen, spend, step in zip(share, spends, steps, strict=True):
        edge = float(brentq(_overspent, 0, 10, args=(at, weight, step, spend)))
        bounds.append(edge / float(np.sqrt(seen)))
        borders = np.linspace(-edge, edge, _GRID)
        weight = np.diff(ndtr((borders[:, None] - at) / step), axis=0) @ weight
        at = (borders[1:] + borders[:-1]) / 2
    return tuple(bounds)


def _overspent(
    edge: float,
    at: NDArray[np.float64],
    weight: NDArray[np.float64],
    step: float,
    spend: float,
) -> float:
    """How much more than may be spent one step from these places carries beyond the edge."""
    beyond = ndtr((at - edge) / step) + ndtr((-at - edge) / step)
    return float(beyond @ weight) - spend
