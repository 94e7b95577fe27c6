"""Gated functions of a test run: timed here, or in turns with a revision, and judged."""

from pathlib import Path
from typing import Any

import pytest

from harness.environment import environment
from harness.errors import UsageError
from harness.gate.revision import Revision, Sides
from harness.gate.rounds import Setup, Work, time_rounds
from harness.gate.saved import read
from harness.instruments.turns import Turns
from harness.record import Quantity
from harness.report.quantities import quantity, ratio_interval
from harness.selfcheck import noise_here
from harness.sequential import Looks
from harness.statistics import MIN_SAMPLES, Estimate, summarise
from harness.verdict import Change, Rule, judge

_GENERATIONS, _LOOKS = 6, 3  # fewer than a cell gets: a test run starts slowly
Found = dict[str, Any]  # samples, generations; figures; verdict and what is told of it


class Gate:
    """What a test run compares its functions with; one for the whole run."""

    def __init__(self, config: pytest.Config) -> None:
        """Look the baseline up.

        Raises:
            UsageError: if it is neither a file of samples nor a revision.
        """
        self._rounds: int = config.getoption("--llmatrix-rounds")
        self._rule = Rule(margin=config.getoption("--llmatrix-margin"), noise=noise_here())
        self._saved: tuple[str, dict[str, Found]] | None = None
        self._revision: Revision | None = None
        baseline = config.getoption("--llmatrix-baseline")
        if baseline and Path(baseline).is_file():
            self._saved = read(Path(baseline))
        elif baseline:
            self._revision = Revision(baseline, config)

    def close(self) -> None:
        """Remove what was made for the run."""
        if self._revision is not None:
            self._revision.close()

    def measure(self, item: pytest.Item, work: Work, setup: Setup) -> tuple[Any, Found]:
        """What the function returns, and what was found of its time."""
        result = work(setup()) if setup else work()
        if self._revision is not None:
            return result, self._against_revision(item, self._revision)
        samples = time_rounds(work, setup, rounds=self._rounds, turns=Turns())
        if self._saved is not None:
            return result, self._against_saved(item.nodeid, _timing(samples, []), *self._saved)
        return result, _found(_timing(samples, []), _told_time(samples))

    def _against_saved(
        self, name: str, candidate: Quantity, machine: str, saved: dict[str, Found]
    ) -> Found:
        if name not in saved:
            return _found(candidate, "not in the baseline's file: nothing to compare with")
        here = environment().get("machine_class", "")
        if machine != here:
            told = f"the baseline's samples are of another machine ({machine}; this is {here})"
            return _found(candidate, told) | {"verdict": "unresolved"}
        baseline = _timing(saved[name]["samples"], saved[name]["generations"])
        change = judge(baseline, candidate, self._rule, paired=False)
        told = f"{_told(change)}; against stored samples, not in turns"
        return _found(candidate, told) | _figures(change)

    def _against_revision(self, item: pytest.Item, revision: Revision) -> Found:
        """Judge; a regression only if fresh processes confirm it."""
        try:
            first = self._judged(item, revision)
            if first.get("verdict") != "regressed":
                return first
            second = self._judged(item, revision)
        except UsageError as error:
            pytest.fail(f"cannot compare with {revision.name}: {error}", pytrace=False)
        if second.get("verdict") == "regressed":
            return second | {"told": f"{second['told']} (confirmed; first {first['ratio']:.3f}×)"}
        told = f"{first['told']}; not confirmed by fresh processes: {second['told']}"
        return second | {"verdict": "unresolved", "told": told}

    def _judged(self, item: pytest.Item, revision: Revision) -> Found:
        """Generation after generation, until a look at what there is tells."""
        sides, looks = Sides(), Looks(n=_LOOKS, generations=_GENERATIONS)
        share = max(MIN_SAMPLES, -(-self._rounds // looks.generations))
        while True:
            revision.measure(item, share, sides)
            candidate = _timing(sides.candidate, sides.generations)
            if sides.missing:
                return _found(candidate, sides.missing)
            n = len(sides.generations)
            if looks.due(n):
                baseline = _timing(sides.baseline, sides.generations)
                z = looks.z(looks.after(n))
                change = judge(baseline, candidate, self._rule, paired=True, z=z)
                if change.verdict != "unresolved" or n == looks.generations:
                    told = f"{_told(change)}, {revision.name} → working tree"
                    return _found(candidate, told) | _figures(change)


def _timing(samples: list[float], generations: list[int]) -> Quantity:
    value = summarise(samples) if samples else Estimate(0.0, None, None)
    return Quantity(
        value=value.value, low=value.low, high=value.high, unit="s", better="lower", kind="timing",
        samples=samples, generations=generations,
    )  # fmt: skip


def _found(candidate: Quantity, told: str) -> Found:
    figures = {"median_s": candidate.value, "rounds": len(candidate.samples)}
    kept = {"samples": candidate.samples, "generations": candidate.generations}
    return {**figures, **kept, "told": told}


def _figures(change: Change) -> Found:
    return {
        "verdict": change.verdict,
        "ratio": change.value,
        "ratio_low": change.low,
        "ratio_high": change.high,
    }


def _told_time(samples: list[float]) -> str:
    value = summarise(samples)
    return f"{quantity('s', value.value)} a call (median of {len(samples)} rounds)"


def _told(change: Change) -> str:
    ratio = ratio_interval(Estimate(change.value, change.low, change.high))
    times = " → ".join(quantity("s", side) for side in (change.baseline, change.candidate))
    line = f"{change.verdict}: {times}, {ratio}, margin {change.margin:.2g}"
    return f"{line}; {change.reason}" if change.reason else line
