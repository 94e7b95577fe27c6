"""Run a plan's cells on this machine: worker threads that claim, run and record what is missing.

Cells that are timed and will be compared, those of one suite and setting, are taken together and
measured in turns (harness/generations.py); any other cell is taken alone.

A shard is a launcher's job. All shards of a run walk the same plan, each from its own place, and
take whatever nobody has claimed; so a shard that dies leaves nothing behind that another will not
do. Every thread blocks while its cell runs.
"""

import queue
import shutil
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import catalogue
from harness.artifacts import Artifacts, default_folder
from harness.card import Suite
from harness.cell import Cell, digest
from harness.command import command_of
from harness.cores import lease, shares
from harness.elastic import Ranks
from harness.environment import environment, load, now, usable_cores
from harness.floors import with_floors
from harness.generations import Course, Measured, measure_together
from harness.isolate import GENERATIONS, Ending, Limits, Place
from harness.record import Quantity, Record
from harness.server import ForkServer, StoppedError
from harness.statistics import summarise
from harness.store import Store

_CLAIM_S = 0.5  # how long one look at another process's cell waits; then comes the next such cell
_STOPPING_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """A cell began (`record` is None) or ended."""

    worker: int
    cell: Cell
    record: Record | None = None


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One job's part in a run."""

    store: Store
    cells: Sequence[Cell]
    index: int = 0
    of: int = 1
    workers: int = 1
    generations: int = GENERATIONS
    warm: bool = True  # whether the server imports suites and techniques once for all cells
    limits: Limits = field(default_factory=Limits)
    ranks: Ranks = "fork"

    def run(self, listen: Callable[[Event], None]) -> None:
        """Until every cell of the plan has its record, by this shard or another.

        Raises:
            UsageError: if records can no longer be written; what was recorded stays.
        """
        places = shares(usable_cores(), self.workers)
        server = server_for(self.cells if self.warm else (), threads=len(places[0]))
        turn, events = _Turn(relays(self._order())), Events()
        workers = [
            _Worker(number, cores, self, server, turn, events)
            for number, cores in enumerate(places)
        ]
        threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
        try:
            for thread in threads:
                thread.start()
            _pass_on(events, listen, len(threads))
            self.store.tidy()
        finally:
            turn.stop()
            server.close()
            for thread in threads:
                thread.join(_STOPPING_S)  # one that waits for cores of another process is left

    def _order(self) -> list[Cell]:
        """All cells, beginning at this shard's own part."""
        start = len(self.cells) * self.index // self.of
        return [*self.cells[start:], *self.cells[:start]]


Events = queue.Queue[Event | BaseException | None]  # None: a worker is done


def _pass_on(events: Events, listen: Callable[[Event], None], working: int) -> None:
    """Hand every event to the listener until no worker is left; a worker's error is raised."""
    while working:
        event = events.get()
        if isinstance(event, BaseException):
            raise event
        if event is None:
            working -= 1
        else:
            listen(event)


@dataclass(frozen=True)
class _Worker:
    """One thread: takes cells that belong together, waits for them, writes their records."""

    number: int
    cores: Sequence[int]
    shard: Shard
    server: ForkServer
    turn: "_Turn"
    events: Events

    def run(self) -> None:
        try:
            while (taken := self.turn.next()) is not None:
                self.take(taken[0], wait_s=_CLAIM_S if taken[1] else 0)
        except StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self.events.put(error)
        self.events.put(None)

    def take(self, cells: Sequence[Cell], *, wait_s: float) -> None:
        """Claim and measure what is missing of cells that belong together.

        Who has the first is at work on the others too, so that no two split a relay between them.
        """
        store = self.shard.store
        missing = [cell for cell in cells if not store.has(cell.cell_id)]
        with ExitStack() as claims:
            mine: list[Cell] = []
            for cell in missing:
                wait_s = 0 if mine else wait_s
                if claims.enter_context(store.claim(cell, wait_s=wait_s)):
                    mine.append(cell)
                elif not mine:
                    break
            if left := [c for c in missing if c not in mine and not store.has(c.cell_id)]:
                self.turn.later(left)
            while mine:
                mine = self.measure(mine)

    def measure(self, cells: Sequence[Cell]) -> list[Cell]:
        """Run and record the cells; those for which there was no room."""
        store = self.shard.store
        self.server.start()
        place = Place(
            server=self.server,
            cores=self.cores,
            limits=self.shard.limits,
            ranks=self.shard.ranks,
        )
        with (
            lease(self.cores, alone=cells[0].timing),
            store.writing(f"the scratch of {cells[0].label}"),
        ):
            for cell in cells:
                self.events.put(Event(worker=self.number, cell=cell))
            begun = Begun()
            measured = measure_together(
                [Course(cell, store.scratch(cell), place) for cell in cells],
                generations=self.shard.generations if cells[0].timing else 1,
            )
            records = [
                record_of(cell, store.run, catalogue.suite(cell.suite), what, begun, self.cores)
                for cell, what in zip(cells, measured, strict=True)
                if what is not None
            ]
        by_id = {cell.cell_id: cell for cell in cells}
        for record in records:
            cell = by_id.pop(record.cell_id)
            store.write(record)
            shutil.rmtree(store.scratch(cell), ignore_errors=True)
            self.events.put(Event(worker=self.number, cell=cell, record=record))
        return list(by_id.values())


def relays(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that take turns: timed ones of one suite, setting and device; each other by itself."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        kind = [cell.suite, dict(cell.setting), cell.device, cell.world]
        groups.setdefault(digest(kind) if cell.timing else cell.cell_id, []).append(cell)
    return list(groups.values())


class _Turn:
    """Which cells are next; those another process holds come again at the end, to be waited for."""

    def __init__(self, groups: Sequence[Sequence[Cell]]) -> None:
        self._fresh = list(reversed(groups))
        self._later: deque[Sequence[Cell]] = deque()
        self._lock = threading.Lock()
        self._stopped = False

    def next(self) -> tuple[Sequence[Cell], bool] | None:
        """Cells and whether to wait for their claims; None when all are handed out, or stopped."""
        with self._lock:
            if self._stopped:
                return None
            if self._fresh:
                return self._fresh.pop(), False
            return (self._later.popleft(), True) if self._later else None

    def later(self, cells: Sequence[Cell]) -> None:
        with self._lock:
            self._later.append(cells)

    def stop(self) -> None:
        with self._lock:
            self._stopped = True


def identity(cell: Cell, run: str) -> dict[str, Any]:
    """The part of a record that says which cell of which run it is."""
    return {
        "cell_id": cell.cell_id,
        "run": run,
        "suite": cell.suite,
        "technique": cell.technique,
        "options": dict(cell.options),
        "setting": dict(cell.setting),
        "code": cell.code,
        "world": cell.world,
        "device": cell.device,
        "command": command_of(cell),
    }


@dataclass(frozen=True)
class Begun:
    """When a measurement began, and how busy the machine was."""

    started: str = field(default_factory=now)
    load: list[float] = field(default_factory=load)


def record_of(
    cell: Cell, run: str, suite: Suite, measured: Measured, begun: Begun, cores: Sequence[int]
) -> Record:
    """The record of a cell that was measured just now on these cores, with its floors."""
    ending = measured.ending
    record = Record(
        **identity(cell, run),
        outcome=ending.outcome,
        reason=ending.reason,
        log_tail=ending.log_tail,
        metrics=_quantities(ending, suite) if ending.outcome == "ok" else {},
        notes=ending.notes,
        started=begun.started,
        wall_s=measured.held_s,
        measured_s=ending.measured_s,
        cpu_s=ending.cpu_s,
        peak_rss_bytes=ending.peak_rss_bytes,
        environment=environment(),
        load_before=begun.load,
        load_after=load(),
        relay=measured.relay,
        conditions=ending.conditions,
        harness_cpu_share=measured.harness_cpu_share,
    )
    artifacts = Artifacts(default_folder())
    return with_floors(record, ending.needs, artifacts=artifacts, cores=cores)


def _quantities(ending: Ending, suite: Suite) -> dict[str, Quantity]:
    quantities = {}
    for metric in suite.metrics:
        measured = ending.metrics[metric.name]
        samples = measured if isinstance(measured, list) else []
        value, low, high = summarise(samples, metric.average) if samples else (measured, None, None)
        quantities[metric.name] = Quantity(
            value=value,
            unit=metric.unit,
            better=metric.better,
            kind=metric.kind,
            samples=samples,
            low=low,
            high=high,
            average=metric.average,
            generations=ending.generations.get(metric.name, []),
        )
    return quantities


def server_for(cells: Sequence[Cell], *, threads: int, sources: Path | None = None) -> ForkServer:
    """A fork server that imports suites and techniques ahead; peers stay apart."""
    techniques = {cell.technique for cell in cells if "/peers/" not in cell.technique}
    suites = {cell.suite for cell in cells}
    return ForkServer(
        suites=sorted(suites), techniques=sorted(techniques), threads=threads, sources=sources
    )
