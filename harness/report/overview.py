"""What a run was: its outcomes, the machine and versions behind it, and what to doubt."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from harness.record import OUTCOMES, Record
from harness.report.quantities import quantity
from harness.report.tables import axis_text

_MOST_VALUES = 4  # of one fact before it is summed up
_IDENTITY = {"machine": "machines", "cpu": "processors", "gpu": "GPUs", "commit": "commits"}


@dataclass(frozen=True, slots=True)
class Fact:
    """One line about the environment; `group` is the key it was nested under, if any."""

    group: str
    name: str
    text: str


def outcomes(records: Sequence[Record]) -> dict[str, int]:
    """How often each outcome occurred, in the order of the schema, without those that did not."""
    counts = Counter(record.outcome for record in records)
    return {outcome: counts[outcome] for outcome in OUTCOMES if counts[outcome]}


def facts(records: Sequence[Record]) -> list[Fact]:
    """The records' environments, one line per key, telling apart what differs between cells."""
    seen: dict[tuple[str, str], Counter[str]] = {}
    for record in records:
        for group, name, value in _flat(record.environment):
            seen.setdefault((group, name), Counter())[_text(name, value)] += 1
    lines = [
        Fact(group, name.removesuffix("_bytes"), _several(texts))
        for (group, name), texts in seen.items()
    ]
    loads = [record.load_before[0] for record in records if record.load_before]
    if loads:
        text = f"{min(loads):.2f} to {max(loads):.2f}, median {median(loads):.2f}"
        lines.append(Fact("", "load before a cell", text))
    return lines


def warnings(records: Sequence[Record]) -> list[str]:
    """What weakens the numbers of this run, in plain words."""
    found = []
    dirty = sum(bool(record.environment.get("dirty")) for record in records)
    if dirty:
        found.append(
            f"{dirty:,} of {len(records):,} cells ran with uncommitted changes: "
            "the commit alone does not reproduce them."
        )
    for key, plural in _IDENTITY.items():
        values = {axis_text(r.environment[key]) for r in records if key in r.environment}
        if len(values) > 1:
            found.append(f"Cells come from {len(values)} {plural}: compare timings within one.")
    busy = sum(_was_busy(record) for record in records)
    if busy:
        found.append(
            f"{busy:,} of {len(records):,} cells started on a machine with more runnable "
            "processes than cores: trust ratios more than single times."
        )
    return found


def _was_busy(record: Record) -> bool:
    cores = record.environment.get("cores")
    return isinstance(cores, int) and bool(record.load_before) and record.load_before[0] > cores


def _flat(environment: Mapping[str, Any], group: str = "") -> Iterator[tuple[str, str, Any]]:
    for key, value in environment.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{group}.{key}".lstrip("."))
        else:
            yield group, key, value


def _text(name: str, value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and name.endswith("_bytes"):
        return quantity("B", value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return axis_text(value)


def _several(texts: Counter[str]) -> str:
    """The one text, or the most frequent ones with the number of their cells."""
    if len(texts) == 1:
        return next(iter(texts))
    shown = [f"{text} ({count:,})" for text, count in texts.most_common(_MOST_VALUES)]
    rest = len(texts) - len(shown)
    return "cells differ: " + ", ".join(shown) + (f" and {rest:,} more" if rest else "")
