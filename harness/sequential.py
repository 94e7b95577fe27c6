"""Looking at a measurement while it runs: stop when resolved, without more false alarms for it.

Every look spends a part of the chance of a false alarm; the parts add up to 1 - level. Little is
spent on early looks, as O'Brien and Fleming do: they stop for large changes only, and the last
look is nearly as sharp as a single one.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from harness.errors import UsageError
from harness.record import Quantity
from harness.verdict import Change, Rule, judge

MIN_GENERATIONS = 4
_GRID = 1_201  # points of the density; the bounds are then exact to three digits


@dataclass(frozen=True, kw_only=True, slots=True)
class Looks:
    """When a measurement is looked at: after equal shares of its process generations."""

    n: int = 5
    level: float = 0.95  # over all looks together
    generations: int = 10  # at the last look

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.generations:
            raise UsageError(
                f"looks must be from 1 to the {self.generations} generations, got {self.n}"
            )
        if not 0 < self.level < 1:
            raise UsageError(f"level must be between 0 and 1, got {self.level}")

    def z(self, look: int) -> float:
        """Half-width of the interval at a look (from 1), in standard errors."""
        return _bounds(self.n, self.level)[look - 1]

    def after(self, generations: int) -> int:
        """The look that so many generations belong to, at least 1 and at most n."""
        return min(self.n, max(1, generations * self.n // self.generations))

    def due(self, generations: int) -> bool:
        """Whether it is time for a look."""
        before = (generations - 1) * self.n // self.generations
        return generations * self.n // self.generations > before


def judge_at(
    baseline: Quantity,
    candidate: Quantity,
    look: int,
    looks: Looks,
    rule: Rule,
    *,
    paired: bool = True,
) -> Change:
    """The verdict at a look; anything but unresolved is final, and measuring may stop.

    Few generations cannot show how far processes of the same code differ, so with fewer than four
    there is no verdict on samples yet.
    """
    n = min(len(baseline.generations), len(candidate.generations))
    if n >= MIN_GENERATIONS:
        return judge(baseline, candidate, rule, paired=paired, z=looks.z(look))
    change = judge(baseline, candidate, rule, paired=paired)
    if change.low is None or baseline.kind == "quality":
        return change
    reason = f"{n} process generations so far, a verdict needs {MIN_GENERATIONS}"
    return replace(change, verdict="unresolved", reason=reason)


@lru_cache(maxsize=32)
def _bounds(n: int, level: float) -> tuple[float, ...]:
    """Where a random walk without drift, seen at n equal steps, is stopped at each.

    The density of walks not yet stopped is carried from look to look (Armitage, McPherson, Rowe);
    each bound lets through what the look may spend (Lan and DeMets).
    """
    spent = 2 * norm.sf(norm.isf((1 - level) / 2) / np.sqrt(np.arange(1, n + 1) / n))
    places, density = np.zeros(1), np.ones(1)  # in units of a step's standard deviation
    bounds: list[float] = []
    for look in range(n):
        budget = spent[look] - (spent[look - 1] if look else 0)
        edge = brentq(_beyond, 0.0, 10 * n, args=(places, density, budget))
        bounds.append(float(edge / np.sqrt(look + 1)))
        grid = np.linspace(-edge, edge, _GRID)
        density = norm.pdf(grid[:, None] - places) @ density * (grid[1] - grid[0])
        places = grid
    return tuple(bounds)


def _beyond(
    edge: float, places: NDArray[np.float64], density: NDArray[np.float64], budget: float
) -> float:
    """How much more than the budget one step from these places carries beyond the edge."""
    outside = norm.sf(edge - places) + norm.sf(edge + places)
    return float(outside @ density - budget)
