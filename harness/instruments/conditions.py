"""What the machine did beside each timed round: load, steal, context switches, clock frequency.

Read just before and just after a round, never inside it. A fact that the system does not offer, or
that takes longer than `SLOWEST_S` to read, is left out: of a hundred cores, some files take
milliseconds. Of a GPU, further facts join (harness/nvidia.py).
"""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import perf_counter

import psutil

from harness.environment import usable_cores
from harness.nvidia import Gpu

Reading = dict[str, float]
SLOWEST_S = 1e-4  # of one source, so that a round costs well under a millisecond
_TRIES = 3  # a first read opens files and pays for imports

PROC = "/proc"
CPUS = "/sys/devices/system/cpu"
_MOST_BYTES = 1 << 16  # of a file: what is asked for stands at its beginning


def _growth(before: float, after: float) -> float:
    return after - before


def _mean(before: float, after: float) -> float:
    return (before + after) / 2


def _either(before: float, after: float) -> float:
    """Bits set in one mask or the other."""
    return float(int(before) | int(after))


# How two readings become the round's value; the mean where nothing is said.
_VALUE: dict[str, Callable[[float, float], float]] = {
    "steal": _growth,
    "involuntary_switches": _growth,
    "voluntary_switches": _growth,
    "energy_mj": _growth,
    "throttle": _either,
    "foreign_processes": max,
}


class Conditions:
    """Watches rounds; facts by name.

    load1: load average over a minute. runnable: threads that ran or waited for a core, this one
    included. steal: share of its cores' time that the hypervisor gave to others.
    involuntary_switches, voluntary_switches: of all threads of this process. mhz: of its cores.
    """

    def __init__(self, gpu: Gpu | None = None) -> None:
        sources = (_load, _steal, _switches, _frequency)
        self._sources: list[Callable[[], Reading]] = [s for s in sources if _offered(s)]
        if gpu:
            self._sources.append(gpu.reading)
        self._rounds: list[Reading] = []

    @property
    def values(self) -> dict[str, list[float]]:
        """One value a round of every fact that all rounds have."""
        first = self._rounds[0] if self._rounds else {}
        names = [name for name in first if all(name in taken for taken in self._rounds)]
        return {name: [taken[name] for taken in self._rounds] for name in names}

    @contextmanager
    def round(self) -> Iterator[None]:
        """One round inside the block; one that raises leaves no values."""
        before, start = self._reading(), perf_counter()
        yield
        seconds = perf_counter() - start
        after = self._reading()
        facts = {
            name: round(_VALUE.get(name, _mean)(before[name], after[name]), 3)
            for name in before
            if name in after
        }
        if "steal" in facts:  # counted in ticks of 10 ms: one may be longer than the round
            facts["steal"] = min(1.0, round(facts["steal"] / seconds, 4))
        self._rounds.append(facts)

    def _reading(self) -> Reading:
        reading: Reading = {}
        for source in self._sources:
            reading |= source()
        return reading


def offered() -> list[str]:
    """Names of the facts that this machine offers at low cost, those of GPUs aside."""
    watch = Conditions()
    with watch.round():
        pass
    return list(watch.values)


def _offered(source: Callable[[], Reading]) -> bool:
    times = []
    for _ in range(_TRIES):
        start = perf_counter()
        reading = source()
        times.append(perf_counter() - start)
    return bool(reading) and min(times) <= SLOWEST_S


def _load() -> Reading:
    """From `0.32 0.28 0.86 1/90 5207`: the average, and threads runnable of all there are."""
    try:
        words = _text(f"{PROC}/loadavg").split()
    except OSError:
        return {"load1": os.getloadavg()[0]} if hasattr(os, "getloadavg") else {}
    return {"load1": float(words[0]), "runnable": float(words[3].partition("/")[0])}


def _steal() -> Reading:
    """Seconds stolen from each of this process's cores since boot, on average."""
    cores = {f"cpu{core}" for core in usable_cores()}
    try:
        lines = _text(f"{PROC}/stat").partition("\nintr")[0].splitlines()
    except OSError:
        return {}
    ticks = [int(words[8]) for line in lines if (words := line.split())[0] in cores]
    return {"steal": sum(ticks) / len(ticks) / os.sysconf("SC_CLK_TCK")} if ticks else {}


def _switches() -> Reading:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"involuntary_switches": used.ru_nivcsw, "voluntary_switches": used.ru_nvcsw}


def _frequency() -> Reading:
    """Mean of this process's cores; of all where the kernel does not tell cores apart."""
    files = [f"{CPUS}/cpu{core}/cpufreq/scaling_cur_freq" for core in usable_cores()]
    try:
        clocks = [int(_text(file)) / 1000 for file in files]
    except OSError:
        clocks = _clocks()
    return {"mhz": sum(clocks) / len(clocks)} if clocks else {}


def _clocks() -> list[float]:
    try:
        lines = _text(f"{PROC}/cpuinfo").split("\n")[:-1]  # the last may be cut off
    except OSError:
        with suppress(OSError, AttributeError, NotImplementedError):  # psutil, where it cannot tell
            return [psutil.cpu_freq().current]
        return []
    return [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]


def _text(path: str) -> str:
    """The beginning of a kernel's file, at a third of what pathlib costs."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, _MOST_BYTES).decode()
    finally:
        os.close(file)
