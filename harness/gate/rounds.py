"""Timed rounds of one function: long enough for the clock, and in turns where others take them."""

import gc
from collections.abc import Callable
from time import perf_counter
from typing import Any

from harness.instruments.turns import Turns

_ROUND_S = 0.005  # a shorter round says more about the clock and the interrupts than the function
_MOST_CALLS = 1_000_000

Work = Callable[..., Any]
Setup = Callable[[], Any] | None


def time_rounds(work: Work, setup: Setup, *, rounds: int, turns: Turns) -> list[float]:
    """Seconds of one call, a sample a round; a round repeats short calls that need no setup."""
    calls = 1 if setup else _calls(work)
    if setup:
        work(setup())  # the first call pays for caches and imports
    samples = []
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()  # a collection would be charged to whichever round it falls on
    try:
        turns.wait("section")
        for _ in range(rounds):
            samples.append(_with_setup(work, setup) if setup else _seconds(work, calls) / calls)
            turns.wait("round")
        turns.wait("done")
    finally:
        if was_enabled:
            gc.enable()
    return samples


def _calls(work: Work) -> int:
    """How many calls make a round; the warm-up at the same time."""
    calls = 1
    work()
    while (took := _seconds(work, calls)) < _ROUND_S and calls < _MOST_CALLS:
        calls = min(_MOST_CALLS, max(2 * calls, round(calls * _ROUND_S / max(took, 1e-9))))
    return calls


def _seconds(work: Work, calls: int) -> float:
    turns = range(calls)
    start = perf_counter()
    for _ in turns:
        work()
    return perf_counter() - start


def _with_setup(work: Work, setup: Callable[[], Any]) -> float:
    argument = setup()
    start = perf_counter()
    work(argument)
    return perf_counter() - start
