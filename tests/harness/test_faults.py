"""Kills at random moments, a full disk, two processes on one run: nothing lost, nothing twice."""

import contextlib
import random
import resource
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import cores
from harness.environment import usable_cores
from harness.store import Store

KILLS_PER_VICTIM = 11
CELLS = 40
SEED = 20260101
KILLED = ("ended by signal SIGKILL", "its fork server died 3 times")


class Siege:
    """A run of marking cells whose processes are killed, and started again, until it is done."""

    def __init__(self, trial: Any, run: str, seed: int) -> None:
        self.trial = trial
        self.run = run
        self.chance = random.Random(seed)
        self.first = seed * CELLS  # marks tell the cells of all sieges apart
        cells = [trial.cell("mark", self.first + n) for n in range(CELLS)]
        self.sizes = {cell.cell_id: cell.options["size"] for cell in cells}
        self.store: Store = trial.prepare(cells, run)
        self.shard: subprocess.Popen[bytes] | None = None
        self.seen: dict[Path, tuple[bytes, int]] = {}  # record -> its bytes, marks of its cell

    def kill(self, victim: str) -> bool:
        """Kill the victim at a random moment; False if the run was done before that."""
        if self.shard is None:
            self.shard = self.trial.start_shard(self.run)
        if victim != "parent" and not self.find(victim):
            return False
        time.sleep(self.chance.uniform(0, 1.0 if victim == "parent" else 0.1))
        descendants = self.descendants()
        process = self.find(victim)
        if process is None:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
        if victim == "parent":
            self.shard.communicate(timeout=30)
            self.shard = None
            assert not psutil.wait_procs(descendants, timeout=30)[1]
        self.look()
        return True

    def find(self, victim: str) -> psutil.Process | None:
        """The process, as soon as there is one; None if the run ends first."""
        while self.shard is not None and self.shard.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                parent = psutil.Process(self.shard.pid)
                servers = parent.children()
                workers = [worker for server in servers for worker in server.children()]
                found = {"parent": [parent], "server": servers, "worker": workers}[victim]
                if found:
                    return self.chance.choice(found)
            time.sleep(0.001)
        return None

    def descendants(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess, AttributeError):
            return psutil.Process(self.shard.pid).children(recursive=True)
        return []

    def look(self) -> None:
        """Finished records stay as they were, byte by byte, and their cells never begin again."""
        paths = sorted((self.store.folder / "cells").glob("*.json"))
        content = {path: path.read_bytes() for path in paths}
        marks = Counter(self.trial.marks())
        now = {p: (data, marks[self.sizes[p.stem]]) for p, data in content.items()}
        assert {path: now.get(path) for path in self.seen} == self.seen
        self.seen = now

    def finish(self) -> None:
        """Run what is missing: one readable record a planned cell, and no other file."""
        shard = self.shard or self.trial.start_shard(self.run)
        output, _ = shard.communicate(timeout=60)
        assert shard.returncode == 0, output.decode()
        self.look()
        records = self.trial.records(self.run)
        assert sorted(record.cell_id for record in records) == sorted(self.sizes)
        for record in records:
            assert record.outcome == "ok" or record.reason in KILLED, record
        assert not list((self.store.folder / "claims").iterdir())


def test_kills_at_random_moments_lose_no_record(trial: Any) -> None:
    victims = ["parent", "server", "worker"] * KILLS_PER_VICTIM
    random.Random(SEED).shuffle(victims)
    sieges = 0
    siege = Siege(trial, "siege0", seed=0)
    kills: Counter[str] = Counter()
    while victims:
        if siege.kill(victims[-1]):
            kills[victims.pop()] += 1
        else:
            siege.finish()
            sieges += 1
            siege = Siege(trial, f"siege{sieges}", seed=sieges)
    siege.finish()
    assert kills == dict.fromkeys(["parent", "server", "worker"], KILLS_PER_VICTIM)
    assert not processes_of(trial)


def processes_of(trial: Any) -> list[psutil.Process]:
    """Every process that carries this trial's environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            marks = process.environ().get("TRIAL_MARKS")
            if marks == trial.environment["TRIAL_MARKS"]:
                found.append(process)
    return found


def test_two_processes_on_one_run_share_its_cells(trial: Any) -> None:
    cells = [trial.cell("mark", n) for n in range(30)]
    trial.prepare(cells)
    shards = [trial.start_shard(), trial.start_shard()]
    for shard in shards:
        output, _ = shard.communicate(timeout=60)
        assert shard.returncode == 0, output.decode()
    assert sorted(trial.marks()) == list(range(30))
    assert {record.cell_id for record in trial.records()} == {cell.cell_id for cell in cells}


def test_cell_of_a_killed_process_is_taken_over_by_the_one_that_waits(trial: Any) -> None:
    slow, quick = trial.cell("sleep", 2), trial.cell("mark")
    store = trial.prepare([slow, quick])
    first = trial.start_shard(workers=1)
    trial.until(lambda: store.scratch(slow).exists())
    second = trial.start_shard(workers=1)
    trial.until(lambda: store.has(quick.cell_id))
    time.sleep(0.2)
    assert second.poll() is None  # it waits for the slow cell
    assert not store.has(slow.cell_id)
    first.kill()
    first.communicate()
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 0, output.decode()
    assert {record.outcome for record in trial.records()} == {"ok"}


def test_process_that_waits_for_another_stops_at_once(trial: Any) -> None:
    slow, quick = trial.cell("sleep", 60), trial.cell("mark")
    store = trial.prepare([slow, quick])
    first = trial.start_shard(workers=1)
    trial.until(lambda: store.scratch(slow).exists())
    second = trial.start_shard(workers=1)
    trial.until(lambda: store.has(quick.cell_id))
    time.sleep(0.2)  # it is in the midst of waiting
    for shard in (second, first):
        begun = time.monotonic()
        shard.send_signal(signal.SIGINT)
        output, _ = shard.communicate(timeout=30)
        assert b"KeyboardInterrupt" in output
        assert time.monotonic() - begun < 8
    trial.until(lambda: not processes_of(trial))


def test_timing_cells_of_two_processes_never_overlap(trial: Any) -> None:
    cells = [trial.cell("mark", n, timed=True) for n in range(12)]
    stores = [trial.prepare(cells, run) for run in "ab"]
    with cores.lease(usable_cores(), alone=True):
        shards = [trial.start_shard(run, workers=1) for run in "ab"]
        for store in stores:  # both are ready and wait for the cores
            trial.until(lambda s=store: any((s.folder / "claims").iterdir()))
    for shard in shards:
        shard.communicate(timeout=60)
    spans = sorted(span for run in "ab" for span in intervals(trial, run))
    assert len(spans) == 24
    overlaps = [ended - begun for (_, ended), (begun, _) in pairwise(spans)]
    assert max(overlaps) < 0.002  # the resolution of `started`


def intervals(trial: Any, run: str) -> Iterator[tuple[float, float]]:
    for record in trial.records(run):
        begun = datetime.fromisoformat(record.started).timestamp()
        yield begun, begun + record.wall_s


def test_full_disk_ends_the_run_with_one_message_and_keeps_its_records(trial: Any) -> None:
    cells = [trial.cell("mark", n) for n in range(30)]
    store = trial.prepare(cells)
    shard = trial.start_shard()
    trial.until(lambda: len(list((store.folder / "cells").glob("*.json"))) > 3)
    resource.prlimit(shard.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    output, _ = shard.communicate(timeout=60)
    last = output.decode().strip().splitlines()[-1]
    assert last.startswith("harness.errors.UsageError: cannot write ")
    assert last.endswith("File too large; make room and go on with: llmatrix run run=a")
    kept = {path: path.read_bytes() for path in (store.folder / "cells").glob("*.json")}
    assert 3 < len(kept) < 30
    again = trial.start_shard()
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 0, output.decode()
    assert len(trial.records()) == 30
    assert {path: path.read_bytes() for path in kept} == kept


@pytest.mark.parametrize("workers", [1, 2])
def test_each_worker_keeps_its_cells_on_its_share_of_the_cores(trial: Any, workers: int) -> None:
    trial.prepare([trial.cell("cores", n) for n in range(4)])
    shard = trial.start_shard(workers=workers)
    shard.communicate(timeout=60)
    expected = max(1, len(usable_cores()) // workers)
    assert {r.metrics["returned"].value for r in trial.records()} == {float(expected)}
