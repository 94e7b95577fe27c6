"""Two sides judged on the same documents: which they are, and right-or-wrong answers.

For answers that are 0 or 1 only the documents on which the sides disagree say anything: McNemar's
exact test asks whether they fall on both sides alike. Its interval is that of Bonett and Price
(2012), which adds one disagreement a side: a bootstrap of few documents without any disagreement
would claim an interval of no width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from harness.record import Quantity


class Answers(NamedTuple):
    """How the share of right answers moved from baseline to candidate."""

    difference: float
    low: float
    high: float
    p: float  # that neither side is better


def documents(quantity: Quantity) -> list[float]:
    """One sample a document: generations that read the same ones are averaged."""
    sizes = set(quantity.generations)
    if len(quantity.generations) < 2 or len(sizes) > 1 or sizes == {1}:
        return quantity.samples
    folded: list[float] = np.reshape(quantity.samples, (-1, sizes.pop())).mean(axis=0).tolist()
    return folded


def right_or_wrong(baseline: Sequence[float], candidate: Sequence[float]) -> bool:
    """Whether all samples are 0 or 1."""
    return {*baseline, *candidate} <= {0.0, 1.0}


def mcnemar(baseline: Sequence[float], candidate: Sequence[float], z: float) -> Answers:
    """The change of the share of right answers, with its interval at `z` and its exact p value."""
    before, after = np.asarray(baseline), np.asarray(candidate)
    n, gained, lost = len(before), int((after > before).sum()), int((after < before).sum())
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    reach = z * ((up + down - (up - down) ** 2) / (n + 2)) ** 0.5
    p = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    low, high = max(-1.0, up - down - reach), min(1.0, up - down + reach)
    return Answers((gained - lost) / n, low, high, float(p))
