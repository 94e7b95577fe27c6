"""Wall-clock samples of a piece of work: warm-up, rounds, nothing dropped.

A round is one sample of each work; between rounds the process waits for its turn, so works of other
processes can be timed in between (harness/relay.py).
"""

import gc
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter  # by name: out of reach for who replaces time.perf_counter

from harness.instruments.conditions import Conditions
from harness.instruments.turns import Turns

Work = Callable[[], object]
Timer = Callable[[Work], float]  # runs the work; its seconds


def seconds(work: Work) -> float:
    """Seconds of one call, by the processor's clock."""
    start = perf_counter()
    work()
    return perf_counter() - start


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Takes samples in rounds, with what the machine did meanwhile."""

    turns: Turns = field(default_factory=Turns)
    conditions: Conditions = field(default_factory=Conditions)
    timer: Timer = seconds

    def repeat(
        self,
        work: Work,
        *,
        warmup: int,
        min_repeats: int,
        max_repeats: int,
        min_seconds: float,
    ) -> list[float]:
        """Seconds of each call after `warmup` calls.

        Repeats until there are `min_repeats` samples and they add up to `min_seconds`, or
        `max_repeats` is reached; where several processes share the work, each takes its part.
        """
        if not 1 <= min_repeats <= max_repeats:
            raise ValueError(
                f"need 1 <= min_repeats <= max_repeats, got {min_repeats}, {max_repeats}"
            )
        least, most = self.turns.share(min_repeats), self.turns.share(max_repeats)
        enough_s = min_seconds / self.turns.generations
        samples: list[float] = []
        with self._section([work], warmup):
            while True:
                samples += self._round([work])
                enough = len(samples) >= least and sum(samples) >= enough_s
                if self.turns.agreed(enough or len(samples) >= most):
                    break
                self.turns.wait("round")
        return samples

    def interleave(
        self, works: Sequence[Work], *, rounds: int, warmup: int, seed: int
    ) -> tuple[list[float], ...]:
        """Seconds of each work, one sample a round, in an order drawn anew each round.

        Drift and neighbours then hit all works alike, so ratios hold where single figures do not.
        """
        samples: tuple[list[float], ...] = tuple([] for _ in works)
        order = list(range(len(works)))
        shuffle = random.Random(f"{seed} {self.turns.generation}").shuffle
        with self._section(works, warmup):
            for number in range(self.turns.share(rounds)):
                if number:
                    self.turns.wait("round")
                shuffle(order)
                taken = self._round([works[index] for index in order])
                for index, sample in zip(order, taken, strict=True):
                    samples[index].append(sample)
        return samples

    def _round(self, works: Sequence[Work]) -> list[float]:
        with self.conditions.round():
            return [self.timer(work) for work in works]

    @contextmanager
    def _section(self, works: Sequence[Work], warmup: int) -> Iterator[None]:
        for work in works:
            for _ in range(warmup):
                work()
        with _collector_paused():
            self.turns.wait("section")
            yield
            self.turns.wait("done")


@contextmanager
def _collector_paused() -> Iterator[None]:
    """A collection inside a sample would be charged to whichever work it falls on."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
