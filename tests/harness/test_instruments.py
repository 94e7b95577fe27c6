"""The clock takes what it says it takes; memory sees spikes, children and reused heap."""

import gc
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest

from harness.artifacts import Artifacts
from harness.instruments import Instruments, memory
from harness.instruments.memory import peak_memory

MIB = 2**20


@pytest.fixture
def instruments(tmp_path) -> Instruments:
    return Instruments(artifacts=Artifacts(tmp_path), technique="trial/behave")


def test_clock_repeats_until_both_minima_are_met(instruments: Instruments) -> None:
    calls = []
    samples = instruments.clock(
        lambda: calls.append(time.sleep(0.01)), warmup=3, min_repeats=2, min_seconds=0.1
    )
    assert len(calls) == len(samples) + 3
    assert sum(samples) >= 0.1
    assert sum(samples[:-1]) < 0.1
    assert min(samples) >= 0.01


def test_clock_takes_the_least_number_even_when_each_is_long(instruments: Instruments) -> None:
    assert len(instruments.clock(lambda: time.sleep(0.02), min_repeats=4, min_seconds=0.01)) == 4


def test_clock_stops_at_the_most_repeats(instruments: Instruments) -> None:
    samples = instruments.clock(int, min_repeats=2, max_repeats=7, min_seconds=60.0)
    assert len(samples) == 7


@pytest.mark.parametrize(("least", "most"), [(0, 5), (6, 5)])
def test_clock_refuses_repeats_that_cannot_be(
    instruments: Instruments, least: int, most: int
) -> None:
    with pytest.raises(ValueError, match=f"got {least}, {most}"):
        instruments.clock(int, min_repeats=least, max_repeats=most)


@pytest.mark.parametrize("enabled", [True, False])
def test_collector_rests_while_samples_are_taken(
    instruments: Instruments, *, enabled: bool
) -> None:
    seen = []
    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        instruments.clock(lambda: seen.append(gc.isenabled()), warmup=0, max_repeats=5)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()
    assert seen == [False] * 5


def order(instruments: Instruments, seed: int) -> list[str]:
    turns: list[str] = []

    def work(name: str) -> Callable[[], None]:
        return lambda: turns.append(name)

    samples = instruments.interleave(*map(work, "abc"), rounds=8, warmup=1, seed=seed)
    assert [len(taken) for taken in samples] == [8, 8, 8]
    return turns


def test_interleave_takes_each_work_once_a_round_in_seeded_order(
    instruments: Instruments,
) -> None:
    turns = order(instruments, seed=1)
    assert turns[:3] == ["a", "b", "c"]  # the warm-up
    rounds = ["".join(turns[i : i + 3]) for i in range(3, len(turns), 3)]
    assert {"".join(sorted(taken)) for taken in rounds} == {"abc"}
    assert len(set(rounds)) > 1
    assert order(instruments, seed=1) == turns
    assert order(instruments, seed=2) != turns


SPIKE = """
import numpy
from harness.instruments.memory import peak_memory

with peak_memory() as reading:
    numpy.ones(200 * 1024**2, dtype=numpy.uint8)  # touches every page, gives all back at once
assert reading.peak_bytes == reading.start_bytes + reading.growth_bytes
print(reading.growth_bytes)
"""


def test_peak_memory_sees_a_spike_shorter_than_a_sample() -> None:
    # In a process of its own: pages of other tests may leave while the block runs.
    command = [sys.executable, "-c", SPIKE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 195 * MIB < int(done.stdout) < 260 * MIB


def test_peak_memory_without_the_kernels_mark_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_reset_high_water_mark", lambda: False)
    with peak_memory() as reading:
        held = np.ones(200 * MIB, dtype=np.uint8)
        time.sleep(0.2)
        del held
    assert 195 * MIB < reading.growth_bytes < 260 * MIB


def test_peak_memory_of_nothing_is_little(instruments: Instruments) -> None:
    with instruments.peak_memory() as reading:
        pass
    assert reading.growth_bytes < 8 * MIB


def test_peak_memory_counts_children(instruments: Instruments) -> None:
    script = f"held = b'x' * {200 * MIB}; print(flush=True); import time; time.sleep(0.3)"
    with instruments.peak_memory() as reading:
        subprocess.run([sys.executable, "-S", "-c", script], check=True, capture_output=True)
    assert 190 * MIB < reading.growth_bytes < 300 * MIB


FREED_BEFORE = """
from harness.instruments.memory import peak_memory

def blocks():
    return [bytearray(b"x" * 50_000) for _ in range(2_000)]  # below the threshold of mmap

held = blocks()
top = bytearray(b"x" * 50_000)  # at the top of the heap: what is below stays resident
del held
with peak_memory() as reading:
    held = blocks()
print(reading.growth_bytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's heap is given back on request")
def test_memory_freed_before_does_not_hide_growth() -> None:
    # In a process of its own: what other tests left on this heap would be freed inside the block.
    command = [sys.executable, "-c", FREED_BEFORE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 90 * MIB


def test_notes_are_collected(instruments: Instruments) -> None:
    instruments.note(a=1)
    instruments.note(b=[2], a=3)
    assert instruments.notes == {"a": 3, "b": [2]}
