"""Run a plan's cells on this machine: worker threads that each claim, run and record one at a time.

A shard is a launcher's job. All shards of a run walk the same plan, each from its own place, and
take whatever nobody has claimed; so a shard that dies leaves nothing behind that another will not
do. Every thread blocks while its cell runs.
"""

import queue
import shutil
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from harness import catalogue
from harness.cell import Cell
from harness.command import command_of
from harness.cores import lease, shares
from harness.environment import environment, load, now, usable_cores
from harness.isolate import Ending, Limits, run_cell
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
    limits: Limits = field(default_factory=Limits)

    def run(self, listen: Callable[[Event], None]) -> None:
        """Until every cell of the plan has its record, by this shard or another.

        Raises:
            UsageError: if records can no longer be written; what was recorded stays.
        """
        places = shares(usable_cores(), self.workers)
        server = _server(self.cells, threads=len(places[0]))
        turn, events = _Turn(self._order()), Events()
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
    """One thread: takes a cell, waits for it, writes its record, takes the next."""

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

    def take(self, cell: Cell, *, wait_s: float) -> None:
        store = self.shard.store
        with store.claim(cell, wait_s=wait_s) as mine:
            if mine:
                self.measure(cell)
            elif not store.has(cell.cell_id):
                self.turn.later(cell)

    def measure(self, cell: Cell) -> None:
        store, scratch = self.shard.store, self.shard.store.scratch(cell)
        self.server.start()
        with lease(self.cores, alone=cell.timing), store.writing(f"the scratch of {cell.label}"):
            self.events.put(Event(worker=self.number, cell=cell))
            started, before, clock = now(), load(), perf_counter()
            ending = run_cell(cell, self.server, self.cores, self.shard.limits, scratch)
            wall_s = perf_counter() - clock
        record = Record(
            **identity(cell, store.run),
            **_result(ending, cell),
            started=started,
            wall_s=wall_s,
            environment=environment(),
            load_before=before,
            load_after=load(),
        )
        store.write(record)
        shutil.rmtree(scratch, ignore_errors=True)
        self.events.put(Event(worker=self.number, cell=cell, record=record))


class _Turn:
    """Which cell is next; cells another process holds come again at the end, to be waited for."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._fresh = list(reversed(cells))
        self._later: deque[Cell] = deque()
        self._lock = threading.Lock()
        self._stopped = False

    def next(self) -> tuple[Cell, bool] | None:
        """A cell and whether to wait for its claim; None when all were handed out, or stopped."""
        with self._lock:
            if self._stopped:
                return None
            if self._fresh:
                return self._fresh.pop(), False
            return (self._later.popleft(), True) if self._later else None

    def later(self, cell: Cell) -> None:
        with self._lock:
            self._later.append(cell)

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


def _result(ending: Ending, cell: Cell) -> dict[str, Any]:
    """The part of a record that says what came of it."""
    metrics = {}
    for metric in catalogue.suite(cell.suite).metrics if ending.outcome == "ok" else ():
        measured = ending.metrics[metric.name]
        samples = measured if isinstance(measured, list) else []
        value, low, high = summarise(samples, metric.average) if samples else (measured, None, None)
        metrics[metric.name] = Quantity(
            value=value,
            unit=metric.unit,
            better=metric.better,
            kind=metric.kind,
            samples=samples,
            low=low,
            high=high,
            average=metric.average,
        )
    return {
        "outcome": ending.outcome,
        "reason": ending.reason,
        "log_tail": ending.log_tail,
        "metrics": metrics,
        "notes": ending.notes,
        "measured_s": ending.measured_s,
        "cpu_s": ending.cpu_s,
        "peak_rss_bytes": ending.peak_rss_bytes,
    }


def _server(cells: Sequence[Cell], threads: int) -> ForkServer:
    """A fork server that imports suites and techniques ahead; peers stay apart."""
    techniques = {cell.technique for cell in cells if "/peers/" not in cell.technique}
    suites = {cell.suite for cell in cells}
    return ForkServer(suites=sorted(suites), techniques=sorted(techniques), threads=threads)
