"""What a suite measures with: the clock, memory, artifacts and notes of one cell.

A suite gets one `Instruments`; each method is a small tool that returns plain numbers. Device
events, floating-point operations, energy and communication join as further methods.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import catalogue
from harness.artifacts import Artifacts
from harness.code import code_digest
from harness.floors import Needs
from harness.instruments.clock import Clock, Work
from harness.instruments.memory import MemoryReading, peak_memory

Samples = list[float]


@dataclass(frozen=True, kw_only=True)
class Instruments:
    """The tools of one cell; `notes` ends up in its record."""

    artifacts: Artifacts
    technique: str  # catalogue name of what is measured
    rank: int = 0
    world: int = 1
    timing: Clock = field(default_factory=Clock)
    notes: dict[str, Any] = field(default_factory=dict)
    needed: dict[str, Needs] = field(default_factory=dict)  # by metric

    def clock(
        self,
        work: Work,
        *,
        warmup: int = 1,
        min_repeats: int = 5,
        max_repeats: int = 200,
        min_seconds: float = 0.5,
    ) -> Samples:
        """Seconds of each call after the warm-up, repeated until both minima are met."""
        return self.timing.repeat(
            work,
            warmup=warmup,
            min_repeats=min_repeats,
            max_repeats=max_repeats,
            min_seconds=min_seconds,
        )

    def interleave(
        self, *works: Work, rounds: int = 9, warmup: int = 1, seed: int = 0
    ) -> tuple[Samples, ...]:
        """Seconds of each work, taking turns in seeded random order, one sample a round.

        The rounds are shared by the processes that repeat this cell: there may be fewer samples.
        Cells that are compared need equal numbers of such calls; one without works is a call too.
        """
        return self.timing.interleave(works, rounds=rounds, warmup=warmup, seed=seed)

    @contextmanager
    def peak_memory(self) -> Iterator[MemoryReading]:
        """Growth of this process's and its children's resident memory inside the block."""
        with peak_memory() as reading:
            yield reading

    def artifact(
        self,
        kind: str,
        identity: dict[str, Any],
        build: Callable[[Path], object],
        *,
        of: str | None = None,
    ) -> Path:
        """A file shared by cells: `build(path)` runs once per identity, under a lock.

        The source of the technique `of` (default: the one being measured) enters the identity, so
        an edited technique never meets what its old self built.
        """
        code = code_digest([catalogue.source(of or self.technique).module])
        return self.artifacts.get(kind, {**identity, "code": code}, build)

    def needs(
        self, metric: str, *, flops: float = 0.0, bytes: float = 0.0, dtype: str = "float32"
    ) -> None:
        """What one sample of this time must compute and move, by formulas (harness/floors.py)."""
        self.needed[metric] = Needs(flops=flops, bytes=bytes, dtype=dtype)

    def note(self, **facts: Any) -> None:
        """Facts for the record: corpus hashes, peer versions, effective configuration."""
        self.notes.update(facts)
