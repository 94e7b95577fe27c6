"""Two revisions of this repository measured live, in turns, until every cell has its verdict.

Each pair of cells runs in generations: fresh servers, fresh processes, every round one turn of
either side. After some of the generations the pairs are judged (harness/sequential.py); those that
are resolved stop, the rest go on until the generations or the budget are used up. Before a change
is believed, its cells are measured once more from the beginning.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import monotonic

from harness.cell import Cell
from harness.comparison import Compared, Comparison, compare
from harness.cores import lease
from harness.environment import now, usable_cores
from harness.errors import UsageError
from harness.generations import Course, relay_name, run_generation
from harness.isolate import Limits, Place
from harness.matching import match
from harness.record import Record
from harness.sequential import Looks
from harness.shard import Begun, identity, record_of, server_for
from harness.store import Store, cells_to_json
from harness.verdict import Rule
from harness.worktrees import ROOT, Checkout, checkouts

CHANGED = ("regressed", "improved")


def _say(line: str) -> None:
    print(line, file=sys.stderr)


@dataclass(frozen=True, kw_only=True, slots=True)
class Live:
    """What is to be compared, and how long that may take."""

    baseline: str  # revisions; "." is the working tree
    candidate: str
    overrides: tuple[str, ...]  # the cells, as for `llmatrix run`
    results: Path
    run: str  # names the two runs that are left, RUN-baseline and RUN-candidate
    confirm: bool = False  # measure what changed once more
    rule: Rule = field(default_factory=Rule)
    looks: Looks = field(default_factory=Looks)
    budget_s: float = 600.0  # no generation begins later
    limits: Limits = field(default_factory=Limits)
    root: Path = ROOT  # of the repository
    say: Callable[[str], None] = _say  # of progress


@dataclass
class _Pair:
    """One cell in both revisions, and the records that it has so far."""

    cells: tuple[Cell, Cell]
    courses: tuple[Course, ...] = ()
    records: tuple[Record, ...] = ()
    begun: Begun = field(default_factory=Begun)
    resolved: bool = False

    @property
    def over(self) -> bool:
        """Whether no further generation would tell more."""
        once = bool(self.records) and not self.cells[0].timing
        return self.resolved or once or any(course.failed for course in self.courses)


def live(request: Live) -> Comparison:
    """Measure both revisions and judge the candidate; two ordinary runs are left in the results.

    Raises:
        UsageError: for a revision that is not there, or cells that the two do not share.
    """
    deadline = monotonic() + request.budget_s
    with checkouts(request.baseline, request.candidate, root=request.root) as sides:
        pairs, alone = _pairs([side.plan(request.overrides) for side in sides])
        stores = [_store(request, name) for name in ("baseline", "candidate")]
        measuring = _Measuring(request, sides, stores, deadline)
        measuring.run(pairs)
        for pair in pairs:
            for store, record in zip(stores, pair.records, strict=True):
                store.write(record)
        comparison = measuring.judged(pairs)
        if request.confirm:
            comparison = _confirm(comparison, pairs, measuring)
    for line in alone:
        request.say(line)
    for store, cells in zip(stores, zip(*(pair.cells for pair in pairs), strict=True), strict=True):
        store.write_plan(_document(request, cells))
    return replace(
        comparison,
        baseline=request.baseline,
        candidate=request.candidate,
        warnings=(*alone, *comparison.warnings),
    )


def _confirm(comparison: Comparison, pairs: Sequence[_Pair], measuring: "_Measuring") -> Comparison:
    """The changes that a second measurement, from the beginning, finds too."""
    changed = {row.candidate.cell_id for row in comparison.rows if row.change.verdict in CHANGED}
    again = [_Pair(pair.cells) for pair in pairs if pair.cells[1].cell_id in changed]
    if not again:
        return comparison
    measuring.request.say(f"{len(again)} changed cells are measured once more")
    measuring.deadline = monotonic() + measuring.request.budget_s
    measuring.run(again)
    second = {_row_key(row): row for row in measuring.judged(again).rows}
    rows = [_confirmed(row, second.get(_row_key(row))) for row in comparison.rows]
    return replace(comparison, rows=tuple(rows))


def _row_key(row: Compared) -> tuple[str, str]:
    return row.candidate.cell_id, row.metric


def _confirmed(row: Compared, second: Compared | None) -> Compared:
    """The row as it is, unless it tells of a change that the second measurement does not find."""
    change = row.change
    if second is None or change.verdict not in CHANGED or second.change.verdict == change.verdict:
        return row
    found = f"{second.change.value:.3f}" if second.change.effect == "ratio" else "no such change"
    reason = f"not confirmed: {change.value:.3f} at first, {found} when measured once more"
    return replace(row, change=replace(change, verdict="unresolved", reason=reason))


@dataclass
class _Measuring:
    """Runs pairs in generations until they are resolved."""

    request: Live
    sides: Sequence[Checkout]
    stores: Sequence[Store]
    deadline: float

    def run(self, pairs: Sequence[_Pair]) -> None:
        looks = self.request.looks
        for generation in range(looks.generations):
            going = [pair for pair in pairs if not pair.over]
            if not going or (generation and monotonic() > self.deadline):
                break
            self.request.say(f"generation {generation + 1}: {len(going)} cells to resolve")
            with self.places(going) as places:
                for pair in going:
                    self.advance(pair, places, seed=generation)
            if looks.due(generation + 1):
                for pair in going:
                    pair.resolved = _is_resolved(self.judged([pair]))

    def advance(self, pair: _Pair, places: Sequence[Place], *, seed: int) -> None:
        """One generation of a pair, and the records of all of them together."""
        if not pair.courses:
            pair.courses = tuple(
                Course(cell, store.scratch(cell), place)
                for cell, store, place in zip(pair.cells, self.stores, places, strict=True)
            )
        for course, place in zip(pair.courses, places, strict=True):
            course.place = place
        with lease(places[0].cores, alone=pair.cells[0].timing):
            run_generation(pair.courses, generations=1, seed=seed)
        name = pair.records[0].relay if pair.records else relay_name(pair.courses)
        pair.records = tuple(
            self.record(side, store, course, name, pair.begun)
            for side, store, course in zip(self.sides, self.stores, pair.courses, strict=True)
        )

    def record(
        self, side: Checkout, store: Store, course: Course, relay: str, begun: Begun
    ) -> Record:
        suite = side.suite(course.cell.suite)
        measured, cores = course.measured(relay), course.place.cores
        record = record_of(course.cell, store.run, suite, measured, begun, cores)
        commit = {"commit": side.commit, "dirty": side.dirty}
        return replace(record, environment={**record.environment, **commit})

    def judged(self, pairs: Sequence[_Pair]) -> Comparison:
        baseline, candidate = zip(*(pair.records for pair in pairs), strict=True)
        return compare(baseline, candidate, self.request.rule, looks=self.request.looks)

    @contextmanager
    def places(self, pairs: Sequence[_Pair]) -> Iterator[list[Place]]:
        """A fresh server of each revision, on the same cores."""
        cores = usable_cores()
        servers = [
            server_for([pair.cells[n] for pair in pairs], threads=len(cores), sources=side.sources)
            for n, side in enumerate(self.sides)
        ]
        try:
            for server in servers:
                server.start()
            limits = self.request.limits
            yield [Place(server=server, cores=cores, limits=limits) for server in servers]
        finally:
            for server in servers:
                server.close()


def _is_resolved(comparison: Comparison) -> bool:
    """Whether more rounds would change nothing: every timing has a verdict."""
    kinds = ("timing", "memory")
    rows = [row for row in comparison.rows if row.quantity.kind in kinds]
    return all(row.change.verdict != "unresolved" or row.change.low is None for row in rows)


def _pairs(plans: Sequence[Sequence[Cell]]) -> tuple[list[_Pair], tuple[str, ...]]:
    """Cells that both revisions plan, and a line for each that only one does."""
    found = match(*([_bare(cell) for cell in plan] for plan in plans))
    baseline, candidate = ({cell.cell_id: cell for cell in plan} for plan in plans)
    pairs = [_Pair((baseline[x.cell_id], candidate[y.cell_id])) for x, y in found.pairs]
    if not pairs:
        raise UsageError(
            "the two revisions have no cell in common for these overrides; "
            "`llmatrix plan ...` in each of them shows its cells"
        )
    lonely = (*found.only_baseline, *found.only_candidate)
    return pairs, tuple(f"only one revision has {record.label}" for record in lonely)


def _bare(cell: Cell) -> Record:
    """A cell in the form that cells are matched in."""
    return Record(**identity(cell, ""), outcome="skipped", started="", wall_s=0.0)


def _store(request: Live, side: str) -> Store:
    store = Store(request.results / f"{request.run}-{side}")
    if (store.folder / "plan.json").exists():
        raise UsageError(f"run {store.run!r} exists in {request.results}; choose another name")
    store.create()
    return store


def _document(request: Live, cells: Sequence[Cell]) -> dict[str, object]:
    return {
        "title": f"{request.baseline} against {request.candidate}, in turns",
        "planned": now(),
        "workers": 1,
        "shards": 1,
        "generations": request.looks.generations,
        "limits": asdict(request.limits),
        "cells": cells_to_json(cells),
        "skips": [],
    }
