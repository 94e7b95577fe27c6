"""Metrics over many runs: where they stand, and at which run and commit they changed.

  llmatrix history                                       all runs of results/
  llmatrix history nightly-1 nightly-2 nightly-3 --technique 'attention/*' --metric forward_ms

Runs are ordered by when they began. Times and sizes are compared within one class of machine only.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from harness import catalogue
from harness.caveats import machine
from harness.change_points import Step, change_points
from harness.command import override
from harness.errors import UsageError, near
from harness.gate.labels import short_labels
from harness.gate.sides import find_run, margin
from harness.record import Quantity, Record
from harness.report.markdown import escape_markdown
from harness.report.quantities import quantity, ratio_text
from harness.statistics import Estimate
from harness.verdict import Rule

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40  # runs that a sparkline shows


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One metric of one cell over runs, on one class of machine."""

    metric: str
    machine: str  # "" where the machine does not matter
    records: tuple[Record, ...]  # in the order they began

    @property
    def values(self) -> list[float]:
        """What the gate would compare: of times the quantile that other work hardly touches."""
        return [_level(record.metrics[self.metric]) for record in self.records]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("runs", nargs="*", metavar="RUN", help="names or folders (all runs)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where runs are kept")
    parser.add_argument("--technique", metavar="PATTERN", help="only these, e.g. 'attention/*'")
    parser.add_argument("--metric", metavar="NAME", help="only this one")
    parser.add_argument("--changed", action="store_true", help="only what changed")
    parser.add_argument("--margin", type=margin, default=Rule().margin, help="as for check (0.01)")
    parser.add_argument("--markdown", action="store_true", help="nothing but the table")


def main(options: argparse.Namespace) -> int:
    """Print a line for each metric of each cell; 0 whatever it says."""
    runs = options.runs or sorted(path.parent.name for path in options.results.glob("*/plan.json"))
    if len(runs) < 2:
        raise UsageError(
            f"a history needs 2 runs at least, got {len(runs)} in {options.results}: "
            "name them or say --results DIR"
        )
    records = [record for run in runs for record in _records(options.results, run)]
    found = list(_chosen(series(records), options))
    steps = [change_points(one.values, Rule(margin=options.margin)) for one in found]
    rows = [pair for pair in zip(found, steps, strict=True) if pair[1] or not options.changed]
    if not options.markdown:
        changed = sum(map(bool, steps))
        print(f"{len(runs)} runs, {len(found)} series, {changed} of them changed\n")
    print(_table(rows))
    return 0


def series(records: Iterable[Record]) -> Iterator[Series]:
    """Every metric that a cell has in two records or more."""
    ordered = sorted(records, key=lambda record: record.started)
    for cell in _cells(ordered):
        for metric in dict.fromkeys(name for record in cell for name in record.metrics):
            having = [
                r for r in cell if metric in r.metrics and r.metrics[metric].value is not None
            ]
            for place, members in _groups(having, lambda r, m=metric: _machine(r, m)):
                if len(members) > 1:
                    yield Series(metric=metric, machine=place, records=tuple(members))


def _level(quantity: Quantity) -> float:
    if quantity.value is None:
        raise ValueError("a metric without a value is in no series")
    share = {"lower": 0.25, "higher": 0.75}.get(quantity.better)
    if quantity.kind != "timing" or quantity.average == "mean" or not quantity.samples or not share:
        return quantity.value
    return float(np.quantile(quantity.samples, share))


def _records(results: Path, run: str) -> list[Record]:
    """The run's good records under the name it was given; of several of one cell the newest."""
    good, _ = find_run(results, run).records()
    good = sorted(good, key=lambda record: record.started)
    newest = {override([_kind(r), _axes(r)]): replace(r, run=run) for r in good}
    return [record for record in newest.values() if record.outcome == "ok"]


def _kind(record: Record) -> list[Any]:
    return [record.suite, record.technique, record.device, record.world]


def _cells(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Records of the same cell: equal but for axes and options that some of the runs lack."""
    for _, alike in _groups(records, lambda r: override(_kind(r))):
        known = set.intersection(*(set(_axes(record)) for record in alike))
        for _, cell in _groups(alike, lambda r, k=known: override(_part(_axes(r), k))):
            if len({record.run for record in cell}) == len(cell):
                yield cell
            else:  # a run has several cells where another knew of one: which one, nobody can tell
                yield from (same for _, same in _groups(cell, lambda r: override(_axes(r))))


def _axes(record: Record) -> dict[str, Any]:
    return {**_named("setting", record.setting), **_named("option", record.options)}


def _named(prefix: str, mapping: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix} {key}": mapping[key] for key in sorted(mapping)}


def _part(mapping: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: mapping[key] for key in sorted(keys)}


def _groups(records: Iterable[Record], key: Any) -> Iterator[tuple[str, list[Record]]]:
    for name, members in groupby(sorted(records, key=key), key):  # a stable sort keeps the order
        yield name, list(members)


def _machine(record: Record, metric: str) -> str:
    """Where it was measured; empty for what is the same on every machine."""
    if record.metrics[metric].kind not in ("timing", "memory"):
        return ""
    return machine(record)


def _chosen(found: Iterable[Series], options: argparse.Namespace) -> Iterator[Series]:
    """What the options ask for.

    Raises:
        UsageError: if that is nothing, with near misses.
    """
    every = list(found)
    chosen = [
        one
        for one in every
        if options.metric in (None, one.metric)
        and (not options.technique or catalogue.glob(one.records[0].technique, options.technique))
    ]
    if not chosen:
        names = sorted({one.metric for one in every})
        asked = " of ".join(word for word in (options.metric, options.technique) if word)
        hint = near(options.metric or "", names)
        raise UsageError(
            f"no metric{f' {asked!r}' if asked else ''} of any cell is in 2 of these runs{hint} "
            f"(metrics there: {', '.join(names) or 'none'})"
        )
    yield from chosen


def _table(rows: Sequence[tuple[Series, Sequence[Step]]]) -> str:
    if not rows:
        return "nothing changed"
    names = short_labels([one.records[-1] for one, _ in rows])
    machines = len({one.machine for one, _ in rows} - {""}) > 1
    headers = ["cell", *(["machine"] if machines else []), "metric", "runs", "course"]
    headers += ["first", "last", "last/first", "changes"]
    lines = []
    for (one, steps), name in zip(rows, names, strict=True):
        unit = one.records[-1].metrics[one.metric].unit
        first, last = one.values[0], one.values[-1]
        line = [name, *([one.machine] if machines else []), one.metric, str(len(one.records))]
        line += [sparkline(one.values), quantity(unit, first), quantity(unit, last)]
        line += [_ratio(last, first), "; ".join(_told(one, step) for step in steps)]
        lines.append([escape_markdown(text) for text in line])
    return tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)


def sparkline(values: Sequence[float]) -> str:
    """The course of the last values, lowest to highest of them."""
    shown = values[-_WIDTH:]
    low, high = min(shown), max(shown)
    if high == low:
        return _BARS[3] * len(shown)
    top = len(_BARS) - 1
    return "".join(_BARS[round((value - low) / (high - low) * top)] for value in shown)


def _told(one: Series, step: Step) -> str:
    """`1.08× worse since nightly-7 (commit 1a2b3c4, after 5d6e7f8)`."""
    before, after = one.records[step.index - 1], one.records[step.index]
    better = after.metrics[one.metric].better
    word = {"higher": ("worse", "better"), "lower": ("better", "worse")}.get(better, ("", ""))
    direction = f" {word[step.ratio > 1]}".rstrip()
    commits = [_commit(record) for record in (after, before)]
    where = f" (commit {commits[0]}, after {commits[1]})" if all(commits) else ""
    return f"{ratio_text(Estimate(step.ratio, None, None))}{direction} since {after.run}{where}"


def _commit(record: Record) -> str:
    commit = str(record.environment.get("commit", ""))[:10]
    return f"{commit} with changes" if commit and record.environment.get("dirty") else commit


def _ratio(last: float, first: float) -> str:
    return ratio_text(Estimate(last / first, None, None)) if first else ""
