"""NVIDIA GPUs as their management library (NVML) sees them; nothing where it is missing.

Through `pynvml` of the package nvidia-ml-py, without torch. No fact is worth a failed cell: what
the library or the device does not offer is left out.
"""

import importlib
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil

_IDLE = 1  # bit of the throttle mask that says only that there was nothing to do


class Gpu:
    """One device."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle

    def reading(self) -> dict[str, float]:
        """Its state now, about a millisecond's reading.

        energy_mj: since the driver was loaded, advancing in steps of some 20 to 100 ms. power_w.
        sm_mhz: clock of the multiprocessors. temperature_c. throttle: NVML's mask of reasons why
        clocks are held down, idleness aside. foreign_processes: others that compute on the device.
        """
        nvml, handle = self._nvml, self._handle
        facts: dict[str, Callable[[], float]] = {
            "energy_mj": lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle),
            "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            "sm_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            "temperature_c": lambda: nvml.nvmlDeviceGetTemperature(
                handle, nvml.NVML_TEMPERATURE_GPU
            ),
            "throttle": lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle) & ~_IDLE,
            "foreign_processes": self._foreign,
        }
        reading = {}
        for name, fact in facts.items():
            with suppress(nvml.NVMLError, AttributeError):
                reading[name] = float(fact())
        return reading

    def _foreign(self) -> int:
        """In a container NVML speaks of the host's ids; then one of the processes is this one."""
        found = {p.pid for p in self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)}
        children = psutil.Process().children(recursive=True)
        own = found & {os.getpid(), *(child.pid for child in children)}
        return max(0, len(found) - max(1, len(own)))


def find(uuid: str) -> Gpu | None:
    """The device of this UUID, with or without its prefix; None where NVML does not know it."""
    nvml = _library()
    if nvml is None:
        return None
    for name in (uuid, f"GPU-{uuid}", f"MIG-{uuid}"):
        with suppress(nvml.NVMLError):
            return Gpu(nvml, nvml.nvmlDeviceGetHandleByUUID(name))
    return None


def names() -> list[str]:
    """Models of all devices that this machine shows; none where NVML is missing."""
    nvml = _library()
    if nvml is None:
        return []
    with suppress(nvml.NVMLError):
        handles = map(nvml.nvmlDeviceGetHandleByIndex, range(nvml.nvmlDeviceGetCount()))
        return [str(nvml.nvmlDeviceGetName(handle)) for handle in handles]
    return []


def _library() -> Any:
    """NVML, started; None without its package or its driver. Starting it again costs little."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    with suppress(nvml.NVMLError):
        nvml.nvmlInit()
        return nvml
    return None
