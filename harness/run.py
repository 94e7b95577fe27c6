"""A run from its plan to its report: prepare the folder, run shards, conclude."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import sleep
from typing import Any

from rich.console import Console
from rich.text import Text

from harness import catalogue
from harness.cell import Cell
from harness.configure import Asked, Execution
from harness.elastic import chosen, stands_by
from harness.environment import environment, load, now
from harness.errors import UsageError
from harness.estimate import estimate_s, told_time
from harness.isolate import Limits
from harness.plan import Skip, make_plan, skipped_cell
from harness.progress import progress
from harness.record import OUTCOMES, Outcome, Record
from harness.shard import Shard, identity
from harness.store import Store, cells_from_json, cells_to_json, open_run

FAILURES: tuple[Outcome, ...] = ("failed", "oom", "timeout", "crashed")
_LOOKS, _LOOK_S = 5, 1.0  # to be sure that nobody is at work
_CONSOLE = Console(highlight=False, soft_wrap=True, markup=False)


def prepare(asked: Asked) -> int:
    """Plan, make the folder, set aside what is to be measured again; the number of missing cells.

    Raises:
        UsageError: for bad input, or a folder that cannot be written.
    """
    execution = asked.execution
    if asked.request is None:
        title, cells, skips = _planned(open_run(execution.results, execution.run))
    else:
        plan = make_plan(asked.request)
        title, cells, skips = plan.title, list(plan.cells), list(plan.skips)
    store = Store(execution.results / execution.run)
    store.create()
    again: dict[str | None, tuple[Outcome, ...]] = {None: (), "failed": FAILURES, "all": OUTCOMES}
    skipped = {skipped_cell(skip).cell_id: skip for skip in skips if skip.recorded}
    for path, fault in store.supersede(again[execution.retry], skipped=skipped).items():
        _say("set aside", f"{path.name}, which is no record ({fault})", "yellow")
    store.write_plan(_document(title, cells, skips, execution))
    for cell_id, skip in skipped.items():
        if not store.has(cell_id):
            store.write(_skip_record(skip, store.run))
    missing = [cell for cell in cells if not store.has(cell.cell_id)]
    _announce(title, cells, missing, skips, execution)
    return len(missing)


def run_shard(results: Path, run: str, index: int) -> None:
    """Run one shard of a prepared run to its end."""
    store = open_run(results, run)
    document = store.read_plan()
    cells = cells_from_json(document["cells"])
    missing = [cell for cell in cells if not store.has(cell.cell_id)]
    if stands_by(missing, os.environ):
        return
    shard = Shard(
        store=store,
        cells=missing,
        index=index,
        of=document["shards"],
        workers=document["workers"],
        generations=document["generations"],
        ranks=chosen(document.get("ranks")),
        limits=Limits(**document["limits"]),
    )
    with progress(_CONSOLE, len(cells), len(cells) - len(missing)) as listen:
        shard.run(listen)


def wait_for_others(execution: Execution) -> int:
    """Wait while processes that are alive work on the run; the number of missing cells then."""
    store = open_run(execution.results, execution.run)
    cells = cells_from_json(store.read_plan()["cells"])
    quiet = 0
    while quiet < _LOOKS:  # between two cells a shard holds none for a moment
        missing = sum(not store.has(cell.cell_id) for cell in cells)
        if not missing:
            break
        quiet = 0 if store.in_flight() else quiet + 1
        sleep(_LOOK_S)
    return missing


def conclude(execution: Execution) -> int:
    """Write the report and say how the run went; 1 if a cell did not end well, else 0."""
    store = open_run(execution.results, execution.run)
    records = report(store, execution.reports, keep=True)
    counts = Counter(record.outcome for record in records)
    for record in records:
        if record.outcome in FAILURES:
            _say(record.outcome, f"{record.label}: {record.reason}", "red")
    told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    _CONSOLE.print(f"{told}; report: {execution.reports / execution.run / 'index.html'}")
    failed = any(counts[outcome] for outcome in FAILURES)
    if failed:
        _CONSOLE.print(f"measure them again: llmatrix run run={execution.run} retry=failed")
    return int(failed)


def report(store: Store, reports: Path, *, keep: bool = False) -> list[Record]:
    """Write the report of a run's records; they are returned, stale ones left out.

    A record is stale when the plan no longer holds its cell: its source has changed since. With
    `keep`, the self-check of this machine is put beside the records.
    """
    from harness.report import Report, selfcheck_of  # pandas, matplotlib: a second `plan` saves

    document = store.read_plan()
    planned = {c.cell_id: place for place, c in enumerate(cells_from_json(document["cells"]))}
    found, bad = store.records()
    for path, fault in bad.items():
        _say("left out", f"{path.name}, which is no record ({fault})", "yellow")
    records = [r for r in found if r.cell_id in planned or r.outcome == "skipped"]
    records.sort(key=lambda record: planned.get(record.cell_id, len(planned)))
    names = dict.fromkeys(record.suite for record in records)
    techniques = dict.fromkeys(record.technique for record in records)
    try:
        Report(
            records=records,
            suites={name: catalogue.suite(name) for name in names if name in catalogue.suites()},
            cards={name: catalogue.card(name) for name in techniques if catalogue.known(name)},
            title=document["title"],
            run=store.run,
            missing=len(planned.keys() - {record.cell_id for record in records}),
            selfcheck=selfcheck_of(store.folder, records, keep=keep),
        ).write(reports / store.run)
    except OSError as error:
        raise UsageError(
            f"cannot write the report to {reports / store.run}: {error.strerror}; the records are "
            f"kept, make room or choose another folder: llmatrix report {store.run} --out PATH"
        ) from error
    return records


def _planned(store: Store) -> tuple[str, list[Cell], list[Skip]]:
    document = store.read_plan()
    skips = [Skip(**skip) for skip in document["skips"]]
    return document["title"], cells_from_json(document["cells"]), skips


def _document(
    title: str, cells: Sequence[Cell], skips: Sequence[Skip], execution: Execution
) -> dict[str, Any]:
    return {
        "title": title,
        "planned": now(),
        "workers": execution.workers,
        "shards": execution.shards,
        "generations": execution.generations,
        "ranks": execution.ranks,
        "limits": asdict(execution.limits),
        "cells": cells_to_json(cells),
        "skips": [asdict(skip) for skip in skips],
    }


def _skip_record(skip: Skip, run: str) -> Record:
    return Record(
        **identity(skipped_cell(skip), run),
        outcome="skipped",
        reason=skip.reason,
        started=now(),
        wall_s=0.0,
        environment=environment(),
        load_before=load(),
        load_after=load(),
    )


def _announce(
    title: str,
    cells: Sequence[Cell],
    missing: Sequence[Cell],
    skips: Sequence[Skip],
    execution: Execution,
) -> None:
    _say(title, f"(run {execution.run})", "bold")
    done = len(cells) - len(missing)
    seconds, unknown = estimate_s(execution.results, missing)
    parts = [f"{len(cells)} cells"]
    if done:
        parts.append(f"{done} recorded already")
    if skips:
        parts.append(f"{len(skips)} left out")
    if missing and unknown < len(missing):
        parts.append(f"about {told_time(seconds / execution.workers)} by earlier runs")
    _CONSOLE.print(", ".join(parts))
    if not missing:
        _CONSOLE.print("nothing is missing; retry=all measures everything again")


def must_exist(results: Path, run: str) -> Store:
    """The run's store.

    Raises:
        UsageError: if there is no such run.
    """
    if not results.exists():
        raise UsageError(f"there is no folder {results}; name another with --results")
    return open_run(results, run)


def _say(first: str, rest: str, style: str) -> None:
    """A line whose first words are styled; what cells and files are called is never markup."""
    _CONSOLE.print(Text.assemble((first, style), " ", rest))
