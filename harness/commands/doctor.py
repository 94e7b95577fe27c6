"""What this machine offers, what is missing, and how to get it."""

import argparse
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness import catalogue, nvidia
from harness.artifacts import Artifacts, default_folder
from harness.ceilings import kept
from harness.environment import environment, load
from harness.instruments.conditions import CPUS, offered


class Finding(NamedTuple):
    """One line of the diagnosis."""

    good: bool
    what: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--results", type=Path, default=Path("results"), help="where runs go")


def main(options: argparse.Namespace) -> int:
    """Print the findings; 1 if the default experiment cannot run."""
    facts = environment()
    print(f"{facts['system']}, {facts['machine_class']}")
    print(f"Python {facts['python']}, torch {facts['versions'].get('torch', 'missing')}")
    findings = list(_findings(options.results))
    for finding in findings:
        mark = "ok  " if finding.good else "MISS"
        print(f"{mark} {finding.what}{'' if finding.good else f': {finding.remedy}'}")
    return int(any(not f.good and f.what.startswith("folder") for f in findings))


def _findings(results: Path) -> Iterator[Finding]:
    yield _folder(results.resolve())
    yield _folder(default_folder())
    yield from _peers()
    busy = load()[0] / (os.cpu_count() or 1)
    yield Finding(
        busy < 0.5, f"load is {busy:.0%} of the cores", "timings will spread; quieten the machine"
    )
    yield from _conditions()
    yield from (Finding(True, f"ceiling {line}") for line in kept(Artifacts(default_folder())))
    yield _cuda()
    compilers = (os.environ.get("CXX", "c++"), "c++", "g++", "clang++")
    yield Finding(
        any(shutil.which(compiler) for compiler in compilers),
        "C++ compiler",
        "attention on a CPU falls back to torch, several times slower; Debian: apt-get install g++",
    )
    yield Finding(
        shutil.which("chromium") is not None, "chromium", "only the page tests need it"
    )  # fmt: skip


def _folder(path: Path) -> Finding:
    """Whether files can be made in the folder, or in the nearest one that exists above it."""
    existing = next(p for p in (path, *path.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Finding(False, f"folder {path}", f"{error.strerror}; choose another")
    free = shutil.disk_usage(existing).free / 1e9
    return Finding(True, f"folder {path}, {free:.0f} GB free")


def _peers() -> Iterator[Finding]:
    missing = {name: catalogue.missing_packages(name) for name in catalogue.peers()}
    for name, packages in missing.items():
        yield Finding(not packages, name, f"pip install {' '.join(packages)}")


def _conditions() -> Iterator[Finding]:
    """What is recorded beside timings, and what makes them steady."""
    found = offered()
    yield Finding(
        "load1" in found, f"recorded beside timings: {', '.join(found)}", "no /proc to read"
    )
    governor = Path(CPUS, "cpu0/cpufreq/scaling_governor")
    if governor.exists():
        chosen = governor.read_text().strip()
        yield Finding(
            chosen == "performance",
            f"CPU frequency governor is {chosen}",
            "timings follow the load; cpupower frequency-set -g performance",
        )
    if shutil.which("nvidia-smi"):
        yield Finding(
            bool(nvidia.names()), "GPU clocks and energy (NVML)", "pip install nvidia-ml-py"
        )


def _cuda() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding(False, "torch", "make .venv/ready")
    import torch  # seconds of import, which the other findings need not wait for

    what = "CUDA device"
    if torch.cuda.is_available():
        return Finding(True, f"{what} {torch.cuda.get_device_name()}")
    return Finding(False, what, "cells that need one will be skipped with that reason")
