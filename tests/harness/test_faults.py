"""Kills at random moments, a full disk, two processes on one run: nothing lost, nothing twice."""

import contextlib
import os
import resource
import signal
import time
from itertools import pairwise
from typing import Any

import psutil
import pytest

from harness import cores
from harness.environment import usable_cores
from tests.siege import VICTIMS, besiege

KILLS_PER_VICTIM = int(os.environ.get("LLMATRIX_KILLS", "5"))
SEED = 20260101


@pytest.mark.timeout(3600)  # LLMATRIX_KILLS may ask for many
def test_kills_at_random_moments_lose_no_record(trial: Any) -> None:
    tally = besiege(trial, KILLS_PER_VICTIM, SEED, tell=lambda _tally: None)
    assert tally.kills == dict.fromkeys(VICTIMS, KILLS_PER_VICTIM)
    assert (tally.lost, tally.rerun, tally.unexplained, tally.different) == (0, 0, 0, 0)
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
    slow, quick = trial.cell("wait"), trial.cell("mark")
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
    trial.let_go()
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
        assert time.monotonic() - begun < 25  # the cell would sleep for 60 s
    trial.until(lambda: not processes_of(trial))


def test_timing_cells_of_two_processes_never_overlap(
    trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores.tempfile, "tempdir", trial.temporary)
    cells = [trial.cell("mark", n, timed=True) for n in range(12)]
    stores = [trial.prepare(cells, run) for run in "ab"]
    with cores.lease(usable_cores(), alone=True):
        shards = [trial.start_shard(run, workers=1) for run in "ab"]
        for store in stores:  # both are ready and wait for the cores
            trial.until(lambda s=store: any((s.folder / "claims").iterdir()))
    for shard in shards:
        shard.communicate(timeout=60)
    lines = trial.folder.joinpath("marks.spans").read_text().splitlines()
    spans = sorted(tuple(map(float, line.split())) for line in lines)
    assert len(spans) >= 24
    assert all(ended <= begun for (_, ended), (begun, _) in pairwise(spans))


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
