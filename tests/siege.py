"""Runs whose processes are killed at random, and started again, until they are done.

Used by tests/harness/test_faults.py and benchmarks/faults.py.
"""

import contextlib
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from harness.record import Record
from harness.run import FAILURES
from harness.store import Store

VICTIMS = ("worker", "server", "parent", "launcher shard")
CELLS = 80
_SHARDS = {"parent": 0, "launcher shard": 1}
_KILLED = ("ended by signal SIGKILL", "its fork server died 3 times")
_LONGEST_S = {"parent": 1.0, "launcher shard": 1.0, "server": 0.1, "worker": 0.1}


@dataclass
class Tally:
    """What came of the kills."""

    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    cells: int = 0
    lost: int = 0  # records that went or changed after they were there
    rerun: int = 0  # cells that began again after they had a record
    unexplained: int = 0  # records that are neither ok nor of a killed process
    different: int = 0  # cells whose record differs from an undisturbed run's after the resume


def besiege(trial: Any, kills_each: int, seed: int, tell: Callable[[Tally], None]) -> Tally:
    """Kill each kind of victim so many times, over as many runs as that takes."""
    victims = [victim for victim in VICTIMS for _ in range(kills_each)]
    random.Random(seed).shuffle(victims)
    tally = Tally()
    siege = Siege(trial, tally)
    while victims:
        if siege.kill(victims[-1]):
            tally.kills[victims.pop()] += 1
            tell(tally)
        else:
            siege.finish()
            siege = Siege(trial, tally)
    siege.finish()
    return tally


class Siege:
    """One run of marking cells, worked on by two processes as a launcher would start them."""

    def __init__(self, trial: Any, tally: Tally) -> None:
        self.trial = trial
        self.tally = tally
        self.run = f"siege{tally.runs}"
        self.chance = random.Random(tally.runs)
        first = tally.runs * CELLS  # marks tell the cells of all sieges apart
        tally.runs += 1
        cells = [trial.cell("mark", first + n) for n in range(CELLS)]
        tally.cells += CELLS
        self.sizes = {cell.cell_id: cell.options["size"] for cell in cells}
        trial.prepare(cells, f"{self.run}-calm")
        _see_through(trial.start_shard(f"{self.run}-calm"))
        self.store: Store = trial.prepare(cells, self.run)
        self.shards: dict[int, subprocess.Popen[bytes]] = {}
        self.seen: dict[Path, tuple[bytes, int]] = {}  # record -> its bytes, marks of its cell

    def kill(self, victim: str) -> bool:
        """Kill the victim at a random moment; False if the run was done before that."""
        self.start()
        if self.find(victim) is None:
            return False
        time.sleep(self.chance.uniform(0, _LONGEST_S[victim]))
        process = self.find(victim)
        if process is None:
            return False
        descendants = _descendants(process)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
        if victim in _SHARDS:
            self.shards.pop(_SHARDS[victim]).communicate(timeout=30)
            assert not psutil.wait_procs(descendants, timeout=30)[1]
        self.look()
        return True

    def start(self) -> None:
        """Have both processes again."""
        for index in _SHARDS.values():
            if index not in self.shards:
                self.shards[index] = self.trial.start_shard(self.run, index=index, of=2)

    def find(self, victim: str) -> psutil.Process | None:
        """The process, as soon as there is one; None if the run ends first."""
        while all(shard.poll() is None for shard in self.shards.values()):
            if found := self.candidates(victim):
                return self.chance.choice(found)
            time.sleep(0.001)
        return None

    def candidates(self, victim: str) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            if victim in _SHARDS:
                return [psutil.Process(self.shards[_SHARDS[victim]].pid)]
            parents = [psutil.Process(shard.pid) for shard in self.shards.values()]
            servers = [server for parent in parents for server in parent.children()]
            if victim == "server":
                return servers
            return [worker for server in servers for worker in server.children()]
        return []

    def look(self) -> None:
        """Finished records stay as they were, byte by byte, and their cells never begin again."""
        paths = sorted((self.store.folder / "cells").glob("*.json"))
        content = {path: path.read_bytes() for path in paths}
        marks = Counter(self.trial.marks())
        now = {p: (data, marks[self.sizes[p.stem]]) for p, data in content.items()}
        for path, (data, begun) in self.seen.items():
            self.tally.lost += path not in now or now[path][0] != data
            self.tally.rerun += path in now and now[path][1] != begun
        self.seen = now

    def finish(self) -> None:
        """Run what is missing, then what was killed; at the end all is as if nothing had been."""
        for shard in self.shards.values():
            _see_through(shard)
        _see_through(self.trial.start_shard(self.run))
        self.look()
        killed = [record for record in self.trial.records(self.run) if record.outcome != "ok"]
        self.tally.unexplained += sum(record.reason not in _KILLED for record in killed)
        if killed:
            self.store.supersede(FAILURES)
            _see_through(self.trial.start_shard(self.run))
        assert not list((self.store.folder / "claims").iterdir())
        calm = {r.cell_id: _measured(r) for r in self.trial.records(f"{self.run}-calm")}
        ours = {r.cell_id: _measured(r) for r in self.trial.records(self.run)}
        assert sorted(calm) == sorted(self.sizes)
        self.tally.different += sum(ours.get(cell) != calm[cell] for cell in calm)
        self.tally.different += len(ours.keys() - calm.keys())


def _see_through(shard: subprocess.Popen[bytes]) -> None:
    output, _ = shard.communicate(timeout=120)
    assert shard.returncode == 0, output.decode()


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []


def _measured(record: Record) -> tuple[str, dict[str, Any]]:
    """What a record says was measured, apart from how long it took."""
    return record.outcome, {name: (q.value, q.samples) for name, q in record.metrics.items()}
