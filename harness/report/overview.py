"""What a run was: what was asked, how it ended, who came out best, where it ran."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from harness.card import Metric
from harness.record import OUTCOMES, Record
from harness.report.quantities import quantity, ratio_text
from harness.report.series import label, setting_text
from harness.report.tables import Row, Table, axis_text

_MOST_VALUES = 4  # of one fact before it is summed up
MOST_FAILURES = 12  # ways to fail that are told
_MOST_LINKS = 3  # to cells of one reason
_MOST_AXIS_VALUES = 6
_NAMES = {"dirty": "uncommitted changes"}


@dataclass(frozen=True, slots=True)
class Fact:
    """One line about the environment; `group` is the key it was nested under, if any."""

    group: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Cells that ended in the same way, but for the numbers in the reason."""

    outcome: str
    reason: str  # of the first
    records: tuple[Record, ...]

    @property
    def shown(self) -> tuple[Record, ...]:
        """The first few."""
        return self.records[:_MOST_LINKS]


def outcomes(records: Sequence[Record]) -> dict[str, int]:
    """How often each outcome occurred, in the order of the schema, without those that did not."""
    counts = Counter(record.outcome for record in records)
    return {outcome: counts[outcome] for outcome in OUTCOMES if counts[outcome]}


def failures(records: Sequence[Record]) -> list[Failure]:
    """Why cells have no numbers, most frequent first, skips last."""
    found: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.outcome != "ok":
            found[record.outcome, re.sub(r"\d+(?:[.,]\d+)*", "#", record.reason)].append(record)
    grouped = [
        Failure(outcome, members[0].reason, tuple(members))
        for (outcome, _), members in found.items()
    ]
    grouped.sort(key=lambda one: (one.outcome == "skipped", -len(one.records)))
    return grouped


def axes_text(table: Table) -> str:
    """The varying axes with their values."""
    parts = []
    for axis in table.axes:
        values = list(dict.fromkeys(axis_text(row.axes[axis]) or "none" for row in table.rows))
        more = len(values) - _MOST_AXIS_VALUES
        shown = " · ".join(values[:_MOST_AXIS_VALUES]) + (f" and {more} more" if more > 0 else "")
        parts.append(f"{axis}: {shown}")
    return "; ".join(parts)


def headline(table: Table) -> str:
    """Who was best in the suite's first metric that tells techniques apart."""
    for metric in table.metrics:
        best = [
            row
            for row in table.rows
            if metric.name in row.entries and row.entries[metric.name].mark == "best"
        ]
        if best and len({row.entries[metric.name].estimate.value for row in table.rows
                         if metric.name in row.entries}) > 1:  # fmt: skip
            return f"{metric.name}: {_winners(table, metric, best)}"
    return ""


def facts(records: Sequence[Record]) -> list[Fact]:
    """The records' environments, one line per key, telling apart what differs between cells."""
    seen: dict[tuple[str, str], Counter[str]] = {}
    for record in records:
        for group, name, text in flat_facts(record):
            seen.setdefault((group, name), Counter())[text] += 1
    lines = [Fact(group, name, _several(texts)) for (group, name), texts in seen.items()]
    if records:
        first, last = (pick(record.started for record in records)[:16] for pick in (min, max))
        text = first if first == last else f"{first} to {last}"
        lines.append(Fact("", "cells started, UTC", text.replace("T", " ")))
    loads = [record.load_before[0] for record in records if record.load_before]
    if loads:
        text = f"{min(loads):.2f} to {max(loads):.2f}, median {median(loads):.2f}"
        lines.append(Fact("", "load before a cell", text))
    return lines


def flat_facts(record: Record) -> Iterator[tuple[str, str, str]]:
    """Group, name and text of each fact of one record's environment."""
    for group, name, value in _flat(record.environment):
        known = _NAMES.get(name, name.removesuffix("_bytes").replace("_", " "))
        yield group, known, _text(name, value)


def _winners(table: Table, metric: Metric, best: Sequence[Row]) -> str:
    """The one best cell with its value, or who won how many of the settings."""
    groups = {row.group for row in best}
    if len(groups) > 1:
        wins = Counter(label(row) for row in {(r.group, label(r)): r for r in best}.values())
        return ", ".join(
            f"{name} in {n} of {len(groups)} settings" for name, n in wins.most_common(2)
        )
    if len(best) > 1:
        return f"{len(best)} equally good"
    row, scale = best[0], table.scales[metric.name]
    entry = row.entries[metric.name]
    text = f"{label(row)} {scale.text(entry.estimate)} {scale.unit}".rstrip()
    text += f" ({setting_text(row)})" if setting_text(row) else ""
    return text + (f", {ratio_text(entry.ratio)} the baseline" if entry.ratio else "")


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
