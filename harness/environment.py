"""What machine, which versions, which commit, how loaded: the facts beside every measurement."""

import math
import os
import platform
import subprocess
from collections import Counter
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from harness import nvidia

_VERSIONS = (
    "llmatrix", "torch", "numpy", "numba", "scipy", "pandas", "hydra-core", "tokenizers",
    "tiktoken", "sentencepiece", "transformers", "triton", "deepspeed",
)  # fmt: skip


@cache
def environment() -> dict[str, Any]:
    """Facts that hold for a whole run; sizes in bytes, clock in MHz."""
    return {
        "machine": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(usable_cores()),
        "memory_bytes": psutil.virtual_memory().total,
        "machine_class": machine_class(),
        "python": platform.python_version(),
        "versions": {name: found for name in _VERSIONS if (found := _version(name))},
        **_commit(),
    }


def machine_class() -> str:
    """Processor, cores, memory and GPUs: what timings and memory are only compared within.

    It names no host, and holds over boots: memory is rounded to a quarter of a power of two, since
    what the kernel keeps for itself changes.
    """
    usable, cores = len(usable_cores()), os.cpu_count() or 1
    count = f"{cores}" if usable == cores else f"{usable} of {cores}"
    parts = [
        " ".join(_cpu_model().split()) or platform.machine(),
        f"{count} {'core' if cores == 1 else 'cores'}",
        f"{_memory_gib(psutil.virtual_memory().total)} GB",
    ]
    for name, many in Counter(_gpus()).items():
        parts.append(f"{many} x {name}" if many > 1 else name)
    return ", ".join(parts)


def load() -> list[float]:
    """Load averages over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def now() -> str:
    """The moment, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def usable_cores() -> list[int]:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")


def _memory_gib(n_bytes: int) -> int:
    gib = n_bytes / 2**30
    step = 1 << max(0, int(math.log2(max(1.0, gib))) - 2)
    return max(1, round(gib / step) * step)


def _gpus() -> list[str]:
    """Models of this machine's NVIDIA devices, without importing torch."""
    if found := nvidia.names():
        return found
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _commit() -> dict[str, Any]:
    """Commit of the source tree and whether it differs from it; empty outside a repository."""
    here = Path(__file__).resolve().parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(here, "status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
