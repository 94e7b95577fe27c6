"""A comparison as one offline page: verdicts first, every change drawn against its margin."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.comparison import Compared, Comparison
from harness.gate.labels import short_labels
from harness.record import Record
from harness.report import details, overview
from harness.report.doubts import flags
from harness.report.payload import Payload, fitted
from harness.report.quantities import Scale, ratio_interval, scale
from harness.report.render import template
from harness.report.tables import Entry, canonical
from harness.statistics import Estimate
from harness.verdict import VERDICTS, Change, Verdict

MOST_BYTES = 4_900_000
MOST_ROWS = 3_000  # worst first, so those left out are equivalent
SYMBOLS: dict[Verdict, str] = {
    "regressed": "✗", "improved": "✓", "equivalent": "=", "unresolved": "?",
}  # fmt: skip
_REACH = (3.0, 30.0)  # of a strip to each side, in margins: at least, at most
_SMALLEST_P = 1e-9  # smaller ones say nothing more


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the page."""

    key: str
    cell: str  # technique with what tells it from the others
    row: Compared
    shown: Scale
    strip: str  # value, low, high, no change; in thousandths of the strip
    band: str  # the margin's two ends

    @property
    def symbol(self) -> str:
        """The verdict for those who do not see colours."""
        return SYMBOLS[self.row.change.verdict]

    @property
    def values(self) -> tuple[str, str]:
        """What was compared, in the metric's unit."""
        change = self.row.change
        estimates = (Estimate(value, None, None) for value in (change.baseline, change.candidate))
        before, after = (self.shown.text(estimate) for estimate in estimates)
        return before, after

    @property
    def change(self) -> str:
        """The ratio or difference with its interval."""
        return change_text(self.row.change, self.shown)

    @property
    def p(self) -> str:
        """The p value, where there is one."""
        p = self.row.change.p
        if p is None:
            return ""
        return f"{p:.2g}" if p >= _SMALLEST_P else f"< {_SMALLEST_P:g}"


def write_comparison(comparison: Comparison, out: Path) -> None:
    """Write the comparison as one HTML file that loads nothing."""
    rows = comparison.rows[:MOST_ROWS]
    lines = _lines(rows)
    broken = [record for _, record in comparison.broken]
    context: dict[str, Any] = {
        "title": f"{comparison.candidate} against {comparison.baseline}",
        "comparison": comparison, "lines": lines, "symbols": SYMBOLS,
        "counts": {verdict: Counter(row.change.verdict for row in comparison.rows)[verdict]
                   for verdict in VERDICTS},
        "overall": ratio_interval(comparison.overall) if comparison.overall else "",
        "broken": list(zip(short_labels(broken), broken, strict=True)),
        "mended": [record for _, record in comparison.mended],
        "why": any(row.change.reason for row in rows),
        "hidden": len(comparison.rows) - len(rows), "sides": _sides(comparison),
        "left_out": [], "data": "",
    }  # fmt: skip
    page = template("comparison.html")
    room = MOST_BYTES - len(page.render(context).encode())
    data, left_out = fitted(_payload(lines), room)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page.render(context | {"data": data, "left_out": left_out}), encoding="utf-8")


def change_text(change: Change, shown: Scale) -> str:
    """The ratio, or the difference in the metric's unit, with its interval."""
    estimate = Estimate(change.value, change.low, change.high)
    if change.effect == "ratio":
        return ratio_interval(estimate)
    sign = "+" * (change.value > 0)
    return f"{sign}{shown.text(estimate)} {shown.interval(estimate)}".rstrip()


def _lines(rows: Sequence[Compared]) -> list[Line]:
    reach = _reach([row.change for row in rows])
    names = short_labels([row.candidate for row in rows])
    return [
        Line(
            key=f"{row.candidate.cell_id}-{row.metric}",
            cell=name,
            row=row,
            shown=scale(row.quantity.unit, [row.change.baseline, row.change.candidate]),
            strip=_strip(row.change, reach),
            band=_band(reach),
        )
        for row, name in zip(rows, names, strict=True)
    ]


def _in_margins(change: Change) -> list[float | None]:
    """Value, low and high as multiples of the margin; nothing where there is none."""
    bounds = (change.value, change.low, change.high)
    if change.margin <= 0:
        return []
    if change.effect == "difference":
        return [None if bound is None else bound / change.margin for bound in bounds]
    unit = math.log1p(change.margin)
    return [None if bound is None or bound <= 0 else math.log(bound) / unit for bound in bounds]


def _reach(changes: Sequence[Change]) -> float:
    """How many margins a strip shows to each side: what most rows need."""
    bounds = [[abs(bound) for bound in _in_margins(c) if bound is not None] for c in changes]
    sizes = sorted(max(known) for known in bounds if known)
    needed = sizes[int(0.9 * (len(sizes) - 1))] if sizes else 0.0
    return min(max(1.1 * needed, _REACH[0]), _REACH[1])


def _place(margins: float, reach: float) -> int:
    return round(500 * (1 + min(max(margins / reach, -1), 1)))


def _strip(change: Change, reach: float) -> str:
    bounds = _in_margins(change)
    if not bounds or bounds[0] is None:
        return ""
    marks = [*bounds, 0.0]
    return " ".join("-" if mark is None else str(_place(mark, reach)) for mark in marks)


def _band(reach: float) -> str:
    return f"{_place(-1, reach)} {_place(1, reach)}"


def _payload(lines: Sequence[Line]) -> Payload:
    shared: dict[str, int] = {}
    lists: list[Any] = []
    cells = {}
    for line in lines:
        numbers = []
        sides = {"Baseline": line.row.baseline, "Candidate": line.row.candidate}
        for side, record in sides.items():
            key = side + canonical(record.environment)
            if key not in shared:
                shared[key] = len(lists)
                lists.append([f"{side}'s environment", details.environment(record)])
            numbers.append(shared[key])
        cells[line.key] = _details(line, sides) | {"shared": numbers}
    return {"shared": lists, "cells": cells}


def _details(line: Line, sides: Mapping[str, Record]) -> Payload:
    """One row in full: both sides' samples, conditions and commands."""
    change, name = line.row.change, line.row.metric
    before, after = line.values
    how = "rounds taken in turns or the same documents" if change.paired else "not paired"
    after = f"{after} {line.shown.unit}".rstrip()
    lead = f"{name}: {before} → {after}, {line.change} ({how})."
    candidate = line.row.candidate
    both = {side.lower(): record for side, record in sides.items()}
    parts: Payload = {
        "title": candidate.technique,
        "tags": [f"{line.symbol} {change.verdict}"],
        "lead": f"{lead} {change.reason}".strip(),
        "flags": [f"{s}: {flag}" for s, r in both.items() for flag in flags(r)],
        "commands": [[f"repeat the {side}", record.command] for side, record in both.items()],
        "metrics": [_metric(side, record, line) for side, record in both.items()],
        "conditions": [
            condition | {"name": f"{condition['name']}, {side}"}
            for side, record in both.items()
            for condition in details.conditions(record)
        ],
        "lists": [
            ["Setting", details.pairs(candidate.setting)],
            ["Options", details.pairs(candidate.options)],
            *[[side, details.run_facts(record)] for side, record in sides.items()],
        ],
    }
    return {key: value for key, value in parts.items() if value}


def _metric(side: str, record: Record, line: Line) -> Payload:
    q = record.metrics[line.row.metric]
    value = 0.0 if q.value is None else q.value
    return details.metric(side, Entry(q, Estimate(value, q.low, q.high)), line.shown)


def _sides(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Facts of both environments, those that differ first: name, baseline, candidate."""
    before = [row.baseline for row in comparison.rows] + [old for old, _ in comparison.broken]
    after = [row.candidate for row in comparison.rows] + [new for _, new in comparison.broken]
    texts = [
        {f"{fact.group} {fact.name}".strip(): fact.text for fact in overview.facts(records)}
        for records in (_unique(before), _unique(after))
    ]
    names = dict.fromkeys([*texts[0], *texts[1]])
    facts = [(name, texts[0].get(name, "–"), texts[1].get(name, "–")) for name in names]
    return sorted(facts, key=lambda fact: fact[1] == fact[2])


def _unique(records: Sequence[Record]) -> list[Record]:
    return list({record.cell_id: record for record in records}.values())
