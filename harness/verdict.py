"""Did a metric change from baseline to candidate? The rule, and its answer for one metric.

The words are those of DESIGN: regressed, improved, equivalent (shown to lie within the margin), or
unresolved (the interval says neither).

Times are compared by their 25 % quantile and rates by their 75 % (the same events), since noise
only ever adds time; sizes by the median, quality by its own average. Single numbers of a kind that
does not vary from run to run (counts, errors, quality) are compared as they are.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from scipy.special import ndtr, ndtri

from harness.card import Direction, Kind
from harness.effect import Scale, Side, effect_of
from harness.pairs import documents, mcnemar, right_or_wrong
from harness.record import Quantity
from harness.statistics import MIN_SAMPLES

Verdict = Literal["regressed", "improved", "equivalent", "unresolved"]
VERDICTS: tuple[Verdict, ...] = ("regressed", "improved", "equivalent", "unresolved")

# Sums taken in another order move the largest rounding error by tens of percent: an error matters
# when it more than doubles, or where there was none.
_ERROR_MARGIN = 1.0
_HUGE = 700.0  # an interval's end beyond it overflows; two generations can say as little as that
_ROUNDING = 1e-9  # relative; counts without a better direction are equal or not


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """What counts as a change."""

    margin: float = 0.01  # relative; a change within it does not matter
    noise: float = 0.0  # relative; by how much times of the same work differ on this machine
    level: float = 0.95  # of the interval
    resamples: int = 2_000
    false_discovery: float = 0.05  # share of false alarms among a gate's changes, at most
    seed: int = 0

    @property
    def z(self) -> float:
        """Half-width of the interval in standard errors."""
        return float(-ndtri((1 - self.level) / 2))

    def margin_of(self, kind: Kind) -> float:
        """The margin of a kind of metric: that of times is never below the machine's noise."""
        return max(self.margin, self.noise) if kind == "timing" else self.margin


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """How one metric of one cell changed."""

    baseline: float  # the estimates that were compared: a 25 % quantile of times, a mean, ...
    candidate: float
    effect: Scale  # of candidate to baseline
    value: float
    low: float | None  # of the interval; None where the samples give none
    high: float | None
    p: float | None  # that the change is within the margin (0 or 1 answers: that there is none)
    verdict: Verdict
    margin: float  # a ratio is within it from 1 / (1 + margin) to 1 + margin, a difference +-margin
    paired: bool  # rounds taken in turns, or the same documents
    reason: str = ""  # why there is no verdict where none is possible


def judge(
    baseline: Quantity, candidate: Quantity, rule: Rule, *, paired: bool, z: float | None = None
) -> Change:
    """Whether the candidate's metric is worse, better, the same, or not known.

    Args:
        baseline: one cell's metric.
        candidate: the same metric of the same cell, by other code.
        rule: margin, level, resamples.
        paired: the rounds were taken in turns, or the documents are the same. It is ignored where
            the sides do not have equally many samples in every generation.
        z: half-width of the interval in standard errors, where it is looked at several times
            (`harness.sequential`); by default that of the rule's level. The p value is scaled to
            be below 1 - level exactly where this interval clears the margin.

    Raises:
        ValueError: if a side has no value.
    """
    exact = _exact(baseline, candidate, rule)
    if baseline.kind in ("count", "error"):
        return exact
    sides = _side(baseline), _side(candidate)
    if baseline.kind == "quality" and paired and sides[0] == sides[1]:
        return replace(exact, paired=True)  # the same on every document
    fewest = min(len(side.samples) for side in sides)
    if fewest >= MIN_SAMPLES:
        paired = paired and sides[0].sizes == sides[1].sizes
        return _sampled(baseline, sides, rule, paired=paired, z=z)
    if baseline.kind == "quality" or (baseline.kind, exact.verdict) == ("memory", "equivalent"):
        return exact
    few = f"{fewest} samples on a side: a verdict on {baseline.kind} needs {MIN_SAMPLES}"
    return replace(exact, verdict="unresolved", reason=few)


def unjudged(baseline: Quantity, candidate: Quantity, rule: Rule, reason: str) -> Change:
    """The two values side by side, where no verdict is possible for this reason.

    Raises:
        ValueError: if a side has no value.
    """
    return replace(_exact(baseline, candidate, rule), verdict="unresolved", reason=reason)


def _exact(baseline: Quantity, candidate: Quantity, rule: Rule) -> Change:
    """Numbers that would be the same again: within the margin, or changed."""
    if baseline.value is None or candidate.value is None:
        raise ValueError("a metric without a value cannot be judged: leave it out")
    before, after = baseline.value, candidate.value
    margin = _ERROR_MARGIN if baseline.kind == "error" else rule.margin_of(baseline.kind)
    margin = _ROUNDING if baseline.better == "neither" else margin
    if min(before, after) > 0:
        scale: Scale = "ratio"
        value, shift, bound = after / before, math.log(after / before), math.log1p(margin)
    else:
        scale, value = "difference", after - before
        shift, margin = value, margin * abs(before)
        bound = margin
    verdict, reason = _word(shift, shift, bound, baseline.better)
    return Change(
        baseline=before, candidate=after, effect=scale, value=value, low=None, high=None, p=None,
        verdict=verdict, margin=margin, paired=False, reason=reason,
    )  # fmt: skip


def _sampled(
    quantity: Quantity, sides: tuple[Side, Side], rule: Rule, *, paired: bool, z: float | None
) -> Change:
    reach, samples = z or rule.z, (sides[0].samples, sides[1].samples)
    if quantity.kind == "quality" and paired and right_or_wrong(*samples):
        return _answers(quantity, samples, rule, reach)
    effect = effect_of(
        *sides, _share(quantity), joint=paired, resamples=rule.resamples, seed=rule.seed
    )
    is_ratio = effect.scale == "ratio"
    margin = rule.margin_of(quantity.kind) * (1 if is_ratio else abs(effect.baseline))
    bound = math.log1p(margin) if is_ratio else margin
    low, high = effect.interval(reach)
    # Looked at several times, the chance to clear the interval by luck is the level's over all
    # looks but less at this one: p is scaled by the two.
    scaled = effect.p(bound, reach) * float(ndtr(-rule.z) / ndtr(-reach))
    verdict, reason = _word(low, high, bound, quantity.better)
    value = effect.value
    if is_ratio:
        value, low, high = (math.exp(min(end, _HUGE)) for end in (value, low, high))
    return Change(
        baseline=effect.baseline, candidate=effect.candidate, effect=effect.scale, value=value,
        low=low, high=high, p=min(1.0, scaled), verdict=verdict, margin=margin, paired=paired,
        reason=reason,
    )  # fmt: skip


def _answers(
    quantity: Quantity, samples: tuple[list[float], list[float]], rule: Rule, z: float
) -> Change:
    """A share of right answers: its margin is in percentage points, not relative."""
    found = mcnemar(*samples, z)
    verdict, reason = _word(found.low, found.high, rule.margin, quantity.better)
    before, after = (sum(side) / len(side) for side in samples)
    return Change(
        baseline=before, candidate=after, effect="difference", value=found.difference,
        low=found.low, high=found.high, p=found.p, verdict=verdict, margin=rule.margin,
        paired=True, reason=reason,
    )  # fmt: skip


def _word(low: float, high: float, bound: float, better: Direction) -> tuple[Verdict, str]:
    """The verdict on an interval where no change is 0, and why there is none."""
    if -bound <= low and high <= bound:
        return "equivalent", ""
    if low <= bound and high >= -bound:
        return "unresolved", ""
    if better == "neither":
        return "unresolved", "it changed, and neither direction is better"
    return ("regressed" if (low > bound) == (better == "lower") else "improved"), ""


def _share(quantity: Quantity) -> float | None:
    """The quantile that is compared; None for the mean."""
    if quantity.average == "mean":
        return None
    if quantity.kind != "timing":
        return 0.5
    return {"lower": 0.25, "higher": 0.75, "neither": 0.5}[quantity.better]


def _side(quantity: Quantity) -> Side:
    if quantity.kind == "quality":
        return Side(samples=documents(quantity), generations=[])
    return Side(samples=quantity.samples, generations=quantity.generations)
