"""A pytest process of one test, in the tree that it is to measure (harness/gate/revision.py)."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.gate.rounds import Setup, Work, time_rounds
from harness.instruments.turns import Turns
from harness.pytest_plugin import CHILD

_INSTALLED = ("site-packages", "dist-packages")


class Answer:
    """What the `gate` fixture does here: measure in turns, leave the samples for who asked."""

    def measure(self, _item: pytest.Item, work: Work, setup: Setup) -> tuple[Any, dict[str, Any]]:
        """What the function returns; nothing is judged here."""
        job = _job()
        result = work(setup()) if setup else work()
        turns = Turns(address=job["address"])
        samples = time_rounds(work, setup, rounds=job["rounds"], turns=turns)
        foreign = strayed(Path(job["top"]), Path(job["tree"]))
        document = json.dumps({"samples": samples, "strayed": foreign})
        Path(job["out"]).write_text(document, encoding="utf-8")
        return result, {"told": "measured for another process"}

    def close(self) -> None:
        """Nothing was made."""


def main() -> int:
    """Run the test; pytest's exit code."""
    job = _job()
    top, tree = Path(job["top"]), Path(job["tree"])
    sys.path[:] = [moved(entry, top, tree) for entry in sys.path]
    if job["here"]:  # as `python -m pytest` does
        sys.path.insert(0, str(Path.cwd()))
    return int(pytest.main(job["arguments"]))


def _job() -> dict[str, Any]:
    job: dict[str, Any] = json.loads(os.environ[CHILD])
    return job


def moved(entry: str, top: Path, tree: Path) -> str:
    """The same place in another tree: an editable installation points into the working tree."""
    path = Path(entry)
    if not path.is_absolute() or not path.is_relative_to(top) or _is_installed(path):
        return entry
    return str(tree / path.relative_to(top))


def strayed(top: Path, tree: Path) -> list[str]:
    """Modules that came from `top` though `tree` is measured; the harness is meant to."""
    files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    return sorted(
        name
        for name, file in files.items()
        if file
        and name.partition(".")[0] != "harness"
        and Path(file).is_relative_to(top)
        and not Path(file).is_relative_to(tree)
        and not _is_installed(Path(file))
    )


def _is_installed(path: Path) -> bool:
    return any(name in path.parts for name in _INSTALLED)
