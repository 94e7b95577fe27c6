"""Recorded cells found again, and measured once more.

A cell is repeated from its record: its own options and setting, not today's defaults.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from harness import catalogue
from harness.cell import Cell, Options
from harness.checks import MACHINE_BOUND, MARGIN, TOLERANCE, Repeat, check
from harness.errors import UsageError, near
from harness.isolate import Limits
from harness.plan import unavailable
from harness.record import Record, RecordError, from_json
from harness.run import must_exist
from harness.shard import Event, Shard
from harness.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """How records are repeated, and what counts as the same."""

    margin: float = MARGIN  # relative, of times and memory
    tolerance: float = TOLERANCE  # relative, of everything else
    workers: int = 1  # that the run had: they decide how many cores a cell gets
    limits: Limits = field(default_factory=Limits)
    warm: bool = True  # whether cells are forked from a server that has imported them
    anew: bool = False  # with an empty cache, so that shared artifacts are made again
    seed_shift: int = 0  # added to the seed of setting and options

    def __post_init__(self) -> None:
        if not 0 < self.margin < 10:
            raise UsageError(f"--margin must be above 0 and below 10, got {self.margin:g}")
        if not 0 <= self.tolerance < 1:
            raise UsageError(f"--tolerance must be from 0 to below 1, got {self.tolerance:g}")


def find_record(results: Path, name: str) -> tuple[Record, Store | None]:
    """The record that a path or RUN/CELL_ID names (a prefix will do), and its run.

    Raises:
        UsageError: if there is none, several, or a file that is no record.
    """
    path = Path(name)
    if path.is_file():
        run = Store(path.absolute().parent.parent)
        try:
            return from_json(path.read_bytes()), run if (
                run.folder / "plan.json"
            ).exists() else None
        except (OSError, RecordError) as error:
            raise UsageError(f"{name} is no record: {error}") from error
    run_name, _, prefix = name.rpartition("/")
    if not run_name:
        raise UsageError(f"{name!r} is no file; name a record's path or RUN/CELL_ID")
    store = must_exist(results, run_name)
    records, _ = store.records()
    found = [record for record in records if record.cell_id.startswith(prefix)]
    if len(found) == 1:
        return found[0], store
    if not found:
        raise UsageError(
            f"run {run_name!r} has no record {prefix!r}{near(prefix, [r.cell_id for r in records])}"
        )
    ids = "; ".join(f"{record.cell_id} {record.label}" for record in found[:4])
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    raise UsageError(f"{name!r} begins the names of {len(found)} records: {ids}{more}")


def terms_of(store: Store | None, terms: Terms) -> Terms:
    """With the workers and limits that the run had, if it is known.

    Raises:
        UsageError: if the run's plan cannot be read.
    """
    if store is None:
        return terms
    plan = store.read_plan()
    limits = Limits(**plan["limits"]) if "limits" in plan else terms.limits
    return replace(terms, workers=int(plan.get("workers", 1)), limits=limits)


def hindrance(record: Record) -> str:
    """Why the cell cannot be repeated here, or nothing."""
    for known, name in (
        (catalogue.known(record.technique), record.technique),
        (record.suite in catalogue.suites(), record.suite),
    ):
        if not known:
            return f"{name} is not installed"
    return unavailable(record.technique, record.device)


def repeat(
    records: Sequence[Record], terms: Terms, listen: Callable[[Event], None] = lambda _: None
) -> list[Repeat]:
    """Measure the cells again, in this order, and hold the records against what comes out.

    Times or memory that seem changed are measured a second time before they count as that.
    """
    with ExitStack() as for_now:
        if terms.anew:
            cache = for_now.enter_context(TemporaryDirectory(prefix="llmatrix-"))
            for_now.enter_context(patch.dict(os.environ, LLMATRIX_CACHE=cache))
        first = _repeat(records, terms, listen)
        doubted = [each.record for each in first if _doubted(each)]
        second = {r.record.cell_id: r for r in _repeat(doubted, terms, listen)}
    return [
        _confirmed(each, second[each.record.cell_id]) if each.record.cell_id in second else each
        for each in first
    ]


def _repeat(
    records: Sequence[Record], terms: Terms, listen: Callable[[Event], None]
) -> list[Repeat]:
    cells = [_cell(record, terms.seed_shift) for record in records]
    groups: dict[int, dict[str, Cell]] = {}
    for record, cell in zip(records, cells, strict=True):
        groups.setdefault(_generations(record), {})[cell.cell_id] = cell
    found: dict[str, Record] = {}
    for generations, group in groups.items():
        with TemporaryDirectory(prefix="llmatrix-") as folder:
            store = Store(Path(folder) / "repeat")
            store.create()
            Shard(
                store=store,
                cells=list(group.values()),
                workers=terms.workers,
                generations=generations,
                warm=terms.warm,
                limits=terms.limits,
            ).run(listen)
            found |= {record.cell_id: record for record in store.records()[0]}
    pairs = zip(records, cells, strict=True)
    bounds = {"margin": terms.margin, "tolerance": terms.tolerance}
    return [check(record, found[cell.cell_id], **bounds) for record, cell in pairs]


def _cell(record: Record, seed_shift: int) -> Cell:
    def shifted(values: Options) -> Options:
        seed = {"seed": values["seed"] + seed_shift} if "seed" in values else {}
        return {**values, **seed}

    return Cell(
        suite=record.suite,
        technique=record.technique,
        options=shifted(record.options),
        setting=shifted(record.setting),
        code=record.code,
        world=record.world,
        device=record.device,
        timing=catalogue.suite(record.suite).timing,
    )


def _generations(record: Record) -> int:
    """Processes that shared the record's rounds."""
    return max((len(q.generations) for q in record.metrics.values()), default=0) or 1


def _doubted(repeated: Repeat) -> bool:
    return any(c.holds is False and c.kind in MACHINE_BOUND for c in repeated.checks)


def _confirmed(first: Repeat, second: Repeat) -> Repeat:
    """The first, its changed times and memory replaced by the second's word on them."""
    words = {one.metric: one for one in second.checks}
    checks = [
        replace(words[one.metric], told=f"{words[one.metric].told} (measured twice)")
        if one.holds is False and one.kind in MACHINE_BOUND and one.metric in words
        else one
        for one in first.checks
    ]
    return replace(first, checks=tuple(checks))
