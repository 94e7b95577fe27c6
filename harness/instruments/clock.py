"""Wall-clock samples of a piece of work: warm-up, adaptive repetition, nothing dropped."""

import gc
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter


def clock(
    work: Callable[[], object],
    *,
    warmup: int,
    min_repeats: int,
    max_repeats: int,
    min_seconds: float,
) -> list[float]:
    """Seconds of each call after `warmup` calls.

    Repeats until there are `min_repeats` samples and they add up to `min_seconds`, or
    `max_repeats` is reached.
    """
    if not 1 <= min_repeats <= max_repeats:
        raise ValueError(f"need 1 <= min_repeats <= max_repeats, got {min_repeats}, {max_repeats}")
    for _ in range(warmup):
        work()
    samples: list[float] = []
    with _collector_paused():
        while len(samples) < max_repeats:
            samples.append(_seconds(work))
            if len(samples) >= min_repeats and sum(samples) >= min_seconds:
                break
    return samples


def interleave(
    *works: Callable[[], object], rounds: int, warmup: int, seed: int
) -> tuple[list[float], ...]:
    """Seconds of each work, one sample a round, in an order drawn anew each round.

    Drift and neighbours then hit all works alike, so ratios hold where single figures do not.
    """
    for work in works:
        for _ in range(warmup):
            work()
    samples: tuple[list[float], ...] = tuple([] for _ in works)
    order = list(range(len(works)))
    shuffle = random.Random(seed).shuffle
    with _collector_paused():
        for _ in range(rounds):
            shuffle(order)
            for index in order:
                samples[index].append(_seconds(works[index]))
    return samples


def _seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


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
