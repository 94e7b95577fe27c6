"""Seconds of a work on its device: by the wall clock on a CPU, by device events on a GPU.

On a GPU a call returns before its work is done. Events bracket the work on the current stream, so
that launches and the wait for them are not counted. What events alone would miss is looked for:
work still running on other streams when the last event is over, and events that claim less than
half of the wall clock's time. Such a sample counts as long as the wall clock says.
"""

import importlib
from collections.abc import Callable
from time import perf_counter  # bound now: replacing time.perf_counter later changes nothing
from typing import Any

from harness import nvidia
from harness.instruments.clock import Timer, Work, seconds

WALL_SHARE = 0.5  # an honest sample of `LONG_S` takes most of the wall clock's time
LONG_S = 1e-3  # below this, launching and waiting are much of the wall clock's time
LATE_SHARE, LATE_S = 0.05, 50e-6  # how much longer all streams may take than the timed one
FLUSH = 2  # times the level-2 cache


class DeviceTimer:
    """Times works on the current stream of a GPU; calling it gives the seconds of one call."""

    def __init__(self, cuda: Any, flush: Callable[[], object] | None = None) -> None:
        """Time by the events of `torch.cuda`; `flush` empties the cache before each sample."""
        self._event, self._synchronize = cuda.Event, cuda.synchronize  # before they are replaced
        self._flush = flush
        self.samples = 0
        self.outlived = 0  # samples whose work went on after the last event
        self.doubted = 0  # samples whose events claim far less than the wall clock

    def __call__(self, work: Work) -> float:
        """Seconds of one call.

        Nothing waits between flush and work: the host enqueues the work while the device still
        flushes, so that short kernels are not charged for their launch.
        """
        begin, end = self._event(enable_timing=True), self._event(enable_timing=True)
        self._synchronize()
        if self._flush:
            self._flush()
        start = perf_counter()
        begin.record()
        work()
        end.record()
        end.synchronize()
        over = perf_counter()
        self._synchronize()
        late = perf_counter() - over
        return self._judged(begin.elapsed_time(end) / 1000, over - start, late)

    def _judged(self, events_s: float, wall_s: float, late_s: float) -> float:
        self.samples += 1
        if late_s > max(LATE_S, LATE_SHARE * events_s):
            self.outlived += 1
            return wall_s + late_s
        if wall_s >= LONG_S and events_s < WALL_SHARE * wall_s:
            self.doubted += 1
            return wall_s
        return events_s

    def notes(self) -> dict[str, Any]:
        """What the record should say of samples that events got wrong; empty when none."""
        counts = {"outlived_events": self.outlived, "doubted_events": self.doubted}
        found: dict[str, Any] = {name: count for name, count in counts.items() if count}
        return {"timing": {"samples": self.samples, **found}} if found else {}


def timer_for(device: str, *, flush: bool = True) -> Timer:
    """The timer of a device, `cpu` or `cuda`; `flush` empties a GPU's cache before each sample.

    Raises:
        ValueError: for another device.
    """
    if device == "cpu":
        return seconds
    if device != "cuda":
        raise ValueError(f"device must be cpu or cuda, got {device!r}")
    torch = importlib.import_module("torch")  # seconds; cells on a CPU may do without it
    return DeviceTimer(torch.cuda, _flusher(torch) if flush else None)


def notes(timer: Timer) -> dict[str, Any]:
    """What the record should say of a timer's samples; of the wall clock's, nothing."""
    return timer.notes() if isinstance(timer, DeviceTimer) else {}


def gpu() -> nvidia.Gpu | None:
    """The current CUDA device for `Conditions`; None without NVML."""
    torch = importlib.import_module("torch")
    return nvidia.find(str(torch.cuda.get_device_properties().uuid))


def _flusher(torch: Any) -> Callable[[], object]:
    size = FLUSH * int(torch.cuda.get_device_properties().L2_cache_size)
    buffer = torch.empty(size, dtype=torch.uint8, device="cuda")
    flush: Callable[[], object] = buffer.zero_
    return flush
