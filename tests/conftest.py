"""Runs as a user starts them: processes of their own, with the third-party plug-in of fixtures/."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness.cell import Cell
from harness.record import Record
from harness.store import Store, cells_to_json

# What a shell starts in the background ignores ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

PLUGIN = Path(__file__).parent / "fixtures" / "plugin"

# One shard of a prepared run, without Hydra and the report: a start costs half as much.
SHARD = """
import sys
from pathlib import Path
from harness.shard import Shard
from harness.store import Store, cells_from_json
store = Store(Path(sys.argv[1]))
cells = cells_from_json(store.read_plan()["cells"])
missing = [cell for cell in cells if not store.has(cell.cell_id)]
workers, index, of = map(int, sys.argv[2:])
Shard(store=store, cells=missing, workers=workers, index=index, of=of).run(lambda event: None)
"""


@dataclass(frozen=True)
class Trial:
    """A folder to run in, with a cache, locks on cores and a file of marks of its own."""

    folder: Path
    temporary: str = field(default_factory=partial(tempfile.mkdtemp, prefix="trial-"))
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(PLUGIN),
            "LLMATRIX_CACHE": str(self.folder / "cache"),
            "TRIAL_MARKS": str(self.folder / "marks"),
            "TMPDIR": self.temporary,  # no cell waits for cores that another test's cells hold
        }

    @staticmethod
    def cell(action: str = "ok", size: int = 1, *, timed: bool = False, world: int = 1) -> Cell:
        """A cell as the plan would resolve it."""
        return Cell(
            suite="trial_timed" if timed else "trial",
            technique="trial/behave",
            options={"action": action, "size": size},
            setting={"n": 0, "seed": 0, "world": world, "note": ""},
            code="0",
            world=world,
            timing=timed,
        )

    @staticmethod
    def until(fact: Callable[[], Any], *, seconds: float = 30.0) -> Any:
        """What `fact` returns once that is true.

        Raises:
            TimeoutError: if that takes too long.
        """
        deadline = time.monotonic() + seconds
        while not (found := fact()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds} s")
            time.sleep(0.005)
        return found

    def store(self, run: str = "a") -> Store:
        return Store(self.folder / "results" / run)

    def records(self, run: str = "a") -> list[Record]:
        good, bad = self.store(run).records()
        assert not bad
        return good

    def marks(self) -> list[int]:
        """Sizes of the cells that began, once for each time."""
        path = self.folder / "marks"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def let_go(self) -> None:
        """Let cells whose action is `wait` come to their end, these and later ones."""
        (self.folder / "marks.go").touch()

    def prepare(self, cells: Sequence[Cell], run: str = "a") -> Store:
        store = self.store(run)
        store.create()
        store.write_plan({"cells": cells_to_json(cells)})
        return store

    def start_shard(
        self, run: str = "a", workers: int = 2, *, index: int = 0, of: int = 1
    ) -> subprocess.Popen[bytes]:
        """A prepared run, or one launcher job's part in it, in a process of its own."""
        numbers = map(str, (workers, index, of))
        return self._start("-c", SHARD, str(self.store(run).folder), *numbers)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """`llmatrix WORDS`."""
        return self._start("-m", "harness", *words)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-P", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """Leave nothing behind, whatever the test came to."""
        for process in self.started:
            with process:
                process.kill()
        shutil.rmtree(self.temporary, ignore_errors=True)


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    trial = Trial(tmp_path)
    yield trial
    trial.end()
