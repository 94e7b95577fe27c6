"""Measure a sample of a run's cells again under changed conditions and flag those that do not hold.

  llmatrix audit quick
  llmatrix audit quick --sample 30 --seed 1 --conditions fresh,cold

fresh: a fresh process of a new server
cold:  nothing imported ahead, and another seed of Python's hashes
order: the cells in reverse order, with an empty cache of artifacts
seed:  another seed of the inputs, where the setting has one; times must hold, of all else the
       change is only told

The sample is drawn by chance from the cells that ended well, every suite at least once. Everything
is written to RUN/audit.json. Exit codes: 0 all hold, 1 one does not, 2 bad input.
"""

import argparse
import json
import os
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console
from tabulate import tabulate

from harness.checks import Repeat, as_json, differences
from harness.commands.rerun import add_bounds
from harness.environment import now
from harness.errors import UsageError, near
from harness.progress import progress
from harness.record import Record
from harness.repeat import Terms, hindrance, repeat, terms_of
from harness.run import must_exist
from harness.shard import Event
from harness.store import Store, write_atomically

_MARKS = {True: "ok", False: "NO", None: "-"}
Listen = Callable[[Event], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("run", help="a folder of results/")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where runs are kept")
    parser.add_argument("--sample", type=int, default=10, help="cells to draw: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the draw: %(default)s")
    parser.add_argument("--conditions", default=",".join(_CONDITIONS), help="%(default)s")
    add_bounds(parser)
    parser.add_argument("--json", action="store_true", help="print audit.json, not a table")


def main(options: argparse.Namespace) -> int:
    """Draw, repeat, write audit.json; 1 if a cell does not hold."""
    conditions = _chosen(options.conditions)
    terms = Terms(margin=options.margin, tolerance=options.tolerance)
    store = must_exist(options.results, options.run)
    sample, left_out = draw(store, size=options.sample, seed=options.seed)
    found = _measure(sample, conditions, terms_of(store, terms))
    document = {
        "run": store.run,
        "moment": now(),
        "seed": options.seed,
        "margin": options.margin,
        "tolerance": options.tolerance,
        "holds": all(one.holds for ones in found.values() for one in ones.values()),
        "left_out": left_out,
        "cells": [_cell_json(record, found) for record in sample],
    }
    with store.writing("audit.json"):
        write_atomically(store.folder / "audit.json", json.dumps(document, indent=1).encode())
    if options.json:
        print(json.dumps(document, indent=1))
    else:
        _print(sample, found, left_out)
    return int(not document["holds"])


def draw(store: Store, *, size: int, seed: int) -> tuple[list[Record], dict[str, str]]:
    """Cells by chance, every suite at least once, and why others cannot be repeated here.

    Raises:
        UsageError: if the size is not positive or no cell can be repeated.
    """
    if size < 1:
        raise UsageError(f"--sample must be at least 1, got {size}")
    good = [record for record in store.records()[0] if record.outcome == "ok"]
    reasons = {record.cell_id: hindrance(record) for record in good}
    able = [record for record in good if not reasons[record.cell_id]]
    if not able:
        told = "; ".join(dict.fromkeys(reasons.values())) or "no cell ended well"
        raise UsageError(f"run {store.run!r} has nothing to repeat here: {told}")
    random.Random(seed).shuffle(able)
    first = {record.suite: record for record in reversed(able)}
    ranked = sorted(able, key=lambda record: record is not first[record.suite])
    sample = ranked[: max(size, len(first))]
    labels = {record.cell_id: record.label for record in good}
    return (
        sorted(sample, key=lambda record: record.started),
        {labels[cell]: reason for cell, reason in reasons.items() if reason},
    )


def _fresh(records: Sequence[Record], terms: Terms, listen: Listen) -> list[Repeat]:
    return repeat(records, terms, listen)


def _cold(records: Sequence[Record], terms: Terms, listen: Listen) -> list[Repeat]:
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    with patch.dict(os.environ, PYTHONHASHSEED=other):
        return repeat(records, replace(terms, warm=False), listen)


def _order(records: Sequence[Record], terms: Terms, listen: Listen) -> list[Repeat]:
    """Cells meet only in the artifacts they share, so those are made anew."""
    return repeat(records[::-1], replace(terms, anew=True), listen)


def _seed(records: Sequence[Record], terms: Terms, listen: Listen) -> list[Repeat]:
    seeded = [record for record in records if "seed" in record.setting]
    repeated = repeat(seeded, replace(terms, seed_shift=1), listen)
    return [
        replace(
            one,
            checks=tuple(c if c.kind == "timing" else replace(c, holds=None) for c in one.checks),
        )
        for one in repeated
    ]


_CONDITIONS = {"fresh": _fresh, "cold": _cold, "order": _order, "seed": _seed}
_Found = Mapping[str, Mapping[str, Repeat]]  # by condition and cell id


def _chosen(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in _CONDITIONS:
            known = ", ".join(_CONDITIONS)
            raise UsageError(
                f"no condition is called {name!r}{near(name, _CONDITIONS)} (there are: {known})"
            )
    return [name for name in _CONDITIONS if name in names]


def _measure(records: Sequence[Record], conditions: Sequence[str], terms: Terms) -> _Found:
    console = Console(file=sys.stderr, highlight=False, soft_wrap=True, markup=False)
    found = {}
    for name in conditions:
        console.print(f"{name}: {len(records)} cells")
        with progress(console, len(records), 0) as listen:
            repeated = _CONDITIONS[name](records, terms, listen)
        found[name] = {one.record.cell_id: one for one in repeated}
    return found


def _cell_json(record: Record, found: _Found) -> dict[str, Any]:
    repeats = {name: ones[record.cell_id] for name, ones in found.items() if record.cell_id in ones}
    return {
        "cell_id": record.cell_id,
        "label": record.label,
        "differs": differences(record),
        "holds": all(one.holds for one in repeats.values()),
        "conditions": {name: as_json(one) for name, one in repeats.items()},
    }


def _print(sample: Sequence[Record], found: _Found, left_out: Mapping[str, str]) -> None:
    for label, reason in left_out.items():
        print(f"cannot be repeated here: {label}: {reason}")
    rows, broken, spread = [], [], []
    for record in sample:
        marks = []
        for name, ones in found.items():
            one = ones.get(record.cell_id)
            marks.append(_MARKS[one.holds if one else None])
            broken += [f"{record.label}: {name}: {told}" for told in (one.broken if one else ())]
            if one and name == "seed":
                spread += [
                    f"{record.label}: {check.metric} {check.told}"
                    for check in one.checks
                    if check.kind != "timing" and check.told.startswith("differs")
                ]
        rows.append((record.cell_id, *marks, record.label))
    print(tabulate(rows, headers=["cell", *found, ""], tablefmt="github"))
    for title, lines in (("with another seed", spread), ("does not hold", broken)):
        if lines:
            print("\n".join(["", f"{title}:", *(f"  {line}" for line in lines)]))
    print(f"\n{len(sample)} cells, {'all hold' if not broken else 'not all hold'}")
