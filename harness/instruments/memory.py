"""Peak resident memory of a block, this process and its children together.

The kernel keeps a process's own high-water mark (`VmHWM`, reset by writing 5 to `clear_refs`), so
short spikes are seen; where it cannot be reset, and for children, a sampling thread looks
every 20 ms.
"""

import ctypes
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_S = 0.02


@dataclass
class MemoryReading:
    """Filled in when the block ends; bytes."""

    start_bytes: int = 0
    peak_bytes: int = 0

    @property
    def growth_bytes(self) -> int:
        """Peak above what was resident when the block began."""
        return max(0, self.peak_bytes - self.start_bytes)


@contextmanager
def peak_memory() -> Iterator[MemoryReading]:
    """Watch resident memory inside the block."""
    _return_freed_memory()
    process = psutil.Process()
    reading = MemoryReading(start_bytes=_resident(process))
    sampled = [reading.start_bytes]
    exact = _reset_high_water_mark()
    done = threading.Event()
    sampler = threading.Thread(target=_sample, args=(process, done, sampled), daemon=True)
    sampler.start()
    try:
        yield reading
    finally:
        done.set()
        sampler.join()
        reading.peak_bytes = max(sampled[0], _high_water_mark() if exact else 0)


def _sample(process: psutil.Process, done: threading.Event, sampled: list[int]) -> None:
    while not done.wait(SAMPLE_S):
        sampled[0] = max(sampled[0], _resident(process))


def _resident(process: psutil.Process) -> int:
    total = int(process.memory_info().rss)
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            total += int(child.memory_info().rss)
    return total


def _return_freed_memory() -> None:
    """Freed memory that stays resident would hide as much of the block's growth (glibc only)."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _reset_high_water_mark() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _high_water_mark() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
