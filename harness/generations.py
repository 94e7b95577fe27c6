"""Cells measured together: several generations of fresh processes, each a relay, merged.

Cells of one suite and setting are compared with each other, so they take turns. What one process
happens to be (its memory layout, its hash seeds) is a source of error that more rounds do not
average out; more generations do.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from harness.cell import Cell
from harness.isolate import Ending, InFlight, Place
from harness.relay import Runner, run_relay

_SERVER_TRIES = 3  # a server that was killed takes cells in flight along; they are tried again
_MEMORY_KEPT = 0.3  # share of the machine's memory that stays free when a cell joins a relay


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came of one cell, all its generations together."""

    ending: Ending
    relay: str  # the same for cells that took turns; "" for one that ran alone
    held_s: float  # that its processes were at work
    harness_cpu_share: float | None  # of one core, in timed rounds; None where nothing was timed


@dataclass
class Course:
    """One cell on its way through its generations."""

    cell: Cell
    scratch: Path
    place: Place
    endings: list[Ending] = field(default_factory=list)
    _runners: list[Runner] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether a generation did not end well; the course is over then."""
        return any(ending.outcome != "ok" for ending in self.endings)

    def member(self, generations: int) -> InFlight:
        """The process of the next generation, of so many that share the cell's rounds."""
        turns = {"generations": generations, "generation": len(self.endings)}
        return InFlight(self.cell, self.scratch, self.place, turns)

    def take(self, member: InFlight, runner: Runner) -> bool:
        """Keep what came of one process; False if its server died under it."""
        ending = member.ending(timed_out=runner.timed_out)
        self._runners.append(runner)
        if ending is not None:
            self.endings.append(ending)
        return ending is not None

    def measured(self, relay: str) -> Measured:
        """What came of the cell."""
        timed_s = sum(runner.timed_s for runner in self._runners)
        parent_s = sum(runner.parent_cpu_s for runner in self._runners)
        return Measured(
            ending=merged(self.endings),
            relay=relay,
            held_s=sum(runner.held_s for runner in self._runners),
            harness_cpu_share=parent_s / timed_s if timed_s else None,
        )


def measure_together(courses: Sequence[Course], *, generations: int) -> list[Measured | None]:
    """Measure the cells in turns; None for one that found no room beside the others.

    Raises:
        StoppedError: if the server was closed meanwhile.
    """
    for generation in range(generations):
        running = [c for c in courses if not c.failed and len(c.endings) == generation]
        run_generation(running, generations=generations, seed=generation)
    name = relay_name(course for course in courses if course.endings)
    return [course.measured(name) if course.endings else None for course in courses]


def relay_name(courses: Iterable[Course]) -> str:
    """A name for cells that took turns; empty for one that ran alone."""
    return uuid4().hex[:12] if len(list(courses)) > 1 else ""


def run_generation(courses: Sequence[Course], *, generations: int, seed: int) -> None:
    """One fresh process a cell, in turns; again for those whose server was killed.

    Raises:
        StoppedError: if a server was closed meanwhile.
    """
    for _ in range(_SERVER_TRIES):
        members = [course.member(generations) for course in courses]
        limit_s = min((course.place.limits.time_s for course in courses), default=0.0)
        runners = run_relay(members, limit_s=limit_s, seed=seed, admit=_has_room)
        ran = [trio for trio in zip(courses, members, runners, strict=True) if trio[2].started]
        courses = [course for course, member, runner in ran if not course.take(member, runner)]
        if not courses:
            return
    for course in courses:
        reason = f"its fork server died {_SERVER_TRIES} times"
        course.endings.append(Ending(outcome="crashed", reason=reason))


def _has_room() -> bool:
    memory = psutil.virtual_memory()
    return bool(memory.available > _MEMORY_KEPT * memory.total)


def merged(endings: Sequence[Ending]) -> Ending:
    """One ending out of those of all generations; the first that failed, if any did."""
    for ending in endings:
        if ending.outcome != "ok":
            return ending
    first = endings[0]
    if len(endings) == 1:
        return first
    metrics, sizes = {}, {}
    for name in first.metrics:
        metrics[name], sizes[name] = _joined([ending.metrics[name] for ending in endings])
    return replace(
        first,
        metrics=metrics,
        generations={name: counts for name, counts in sizes.items() if counts},
        conditions={
            name: [value for ending in endings for value in ending.conditions.get(name, ())]
            for name in first.conditions
        },
        measured_s=_total(ending.measured_s for ending in endings),
        cpu_s=_total(ending.cpu_s for ending in endings),
        peak_rss_bytes=max(ending.peak_rss_bytes or 0 for ending in endings),
    )


def _joined(values: Sequence[Any]) -> tuple[Any, list[int]]:
    """Samples of all generations one after another; a number that is always the same stays one."""
    if any(value is None for value in values):
        return None, []
    if all(value == values[0] for value in values) and not isinstance(values[0], list):
        return values[0], []
    lists = [value if isinstance(value, list) else [value] for value in values]
    return [sample for samples in lists for sample in samples], [len(samples) for samples in lists]


def _total(values: Any) -> float:
    return sum(value or 0.0 for value in values)
