"""Whether a repeated cell came out as recorded, metric by metric.

Counts, qualities and errors must come out equal; times and memory must not have changed by more
than a margin, and say nothing where they were taken on another class of machine.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.card import Kind
from harness.environment import environment
from harness.plan import source_digest
from harness.record import Quantity, Record
from harness.verdict import Rule, judge

# A repeat takes no turns with its record: hours or a load apart, even the 25 % quantile of the same
# code moves by several percent.
MARGIN = 0.10
# Ten million doubles summed in another order differ by about sqrt(1e7) * 2**-53, a third of this.
TOLERANCE = 1e-12
MACHINE_BOUND = ("timing", "memory")
_MACHINE = ("machine_class", "cpu", "cores", "usable_cores")


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One metric as recorded and as repeated."""

    metric: str
    kind: Kind
    unit: str
    before: float | None
    after: float | None
    holds: bool | None  # None: nothing can be said
    told: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeat:
    """One record beside its repeat."""

    record: Record
    again: Record
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Whether the cell ended as recorded and nothing came out otherwise."""
        same = self.again.outcome == self.record.outcome
        return same and all(check.holds is not False for check in self.checks)

    @property
    def broken(self) -> list[str]:
        """What came out otherwise, in words."""
        told = [f"{check.metric} {check.told}" for check in self.checks if check.holds is False]
        if self.again.outcome != self.record.outcome:
            told.insert(0, f"{self.again.outcome}: {self.again.reason}".removesuffix(": "))
        return told


def check(record: Record, again: Record, *, margin: float, tolerance: float) -> Repeat:
    """Hold every metric of the record against its repeat's.

    Args:
        record: as it was.
        again: of the same cell, just now.
        margin: relative; times and memory may change by so much.
        tolerance: relative; all else may differ by so much.
    """
    then, now = record.environment, again.environment
    same_machine = all(then.get(key, now.get(key)) == now.get(key) for key in _MACHINE)
    checks = []
    for name, before in record.metrics.items() if again.outcome == "ok" else ():
        after = again.metrics.get(name)
        if after is None or before.value is None or after.value is None:
            holds, told = _absent(before, after)
        elif before.kind not in MACHINE_BOUND:
            holds, told = _equal(before, after, tolerance)
        elif same_machine:
            holds, told = _judged(before, after, margin)
        else:
            holds, told = None, "another class of machine"
        checks.append(
            Check(
                metric=name,
                kind=before.kind,
                unit=before.unit,
                before=before.value,
                after=after.value if after else None,
                holds=holds,
                told=told,
            )
        )
    return Repeat(record=record, again=again, checks=tuple(checks))


def _absent(before: Quantity, after: Quantity | None) -> tuple[bool | None, str]:
    if after is None:
        return False, "is no longer measured"
    if before.value is None and after.value is None:
        return True, "does not apply"
    return False, f"applies only {'now' if before.value is None else 'then'}"


def _judged(before: Quantity, after: Quantity, margin: float) -> tuple[bool | None, str]:
    change = judge(before, after, Rule(margin=margin), paired=False)
    told = f"{change.verdict}: {'×' if change.effect == 'ratio' else ''}{change.value:.3g}"
    if change.low is not None and change.high is not None:
        told += f" [{change.low:.3g}, {change.high:.3g}]"
    if change.verdict == "unresolved":
        return None, f"{told}; {change.reason}".removesuffix("; ")
    return change.verdict == "equivalent", told


def _equal(before: Quantity, after: Quantity, tolerance: float) -> tuple[bool, str]:
    numbers = [q.samples or [q.value or 0.0] for q in (before, after)]
    if len(numbers[0]) != len(numbers[1]):
        return False, f"has {len(numbers[1])} samples instead of {len(numbers[0])}"
    worst = max(map(_difference, *numbers))
    if worst == 0:
        return True, "equal"
    return worst <= tolerance, f"differs by {worst:.1e} of its size"


def _difference(a: float, b: float) -> float:
    return abs(a - b) / max(abs(a), abs(b)) if a != b else 0.0


def differences(record: Record) -> list[str]:
    """What is not as it was when the record was made: source, machine, commit, libraries."""
    then, now = record.environment, environment()
    code = source_digest(record.suite, record.technique)
    before = {"source of suite and technique": record.code, **_facts(then)}
    after = {"source of suite and technique": code, **_facts(now)}
    return [
        f"{name} {before[name]} -> {after.get(name, 'none')}"
        for name in before
        if before[name] != after.get(name)
    ]


def _facts(environment: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: environment[key] for key in ("python", *_MACHINE) if key in environment}
    if "commit" in environment:
        known["commit"] = environment["commit"] + " with changes" * bool(environment.get("dirty"))
    return {**known, **environment.get("versions", {})}


def as_json(repeated: Repeat) -> dict[str, Any]:
    """What came of one repeat, for programs."""
    return {
        "cell_id": repeated.record.cell_id,
        "label": repeated.record.label,
        "holds": repeated.holds,
        "outcome": repeated.again.outcome,
        "reason": repeated.again.reason,
        "metrics": [asdict(check) for check in repeated.checks],
    }
