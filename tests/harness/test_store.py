"""Records are whole or not there, a damaged one is named and measured again, none is run twice."""

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from harness import store as store_module
from harness.errors import UsageError
from harness.lease import Leases
from harness.record import Outcome, Record
from harness.store import Store, open_run, write_atomically


def make_record(cell_id: str, outcome: Outcome = "ok", **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "cell_id": cell_id,
        "run": "a",
        "suite": "trial",
        "technique": "trial/behave",
        "options": {},
        "setting": {},
        "code": "0",
        "world": 1,
        "device": "cpu",
        "command": "llmatrix run",
        "outcome": outcome,
        "started": "2026-01-01T00:00:00.000+00:00",
        "wall_s": 1.0,
    }
    return Record(**{**fields, **changes})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "results" / "a")
    store.create()
    return store


def test_written_record_comes_back(store: Store) -> None:
    record = make_record("0" * 16, log_tail="ünïcode \0", notes={"deep": [{"x": None}]})
    store.write(record)
    assert store.has(record.cell_id)
    assert store.records() == ([record], {})


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda _data: b"",
        lambda _data: b"\0" * 512,
        lambda data: data.replace(b'"ok"', b'"fine"'),
        lambda data: data.replace(b'"schema_version": ', b'"schema_version": 9'),
        lambda data: data.replace(b'"wall_s": 1.0', b'"wall_s": NaN'),
    ],
    ids=["truncated", "empty", "zeros", "unknown outcome", "other schema", "not a number"],
)
def test_damaged_file_is_named_and_set_aside(store: Store, damage: Any) -> None:
    store.write(make_record("0" * 16))
    store.write(make_record("1" * 16))
    path = store.folder / "cells" / f"{'1' * 16}.json"
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    assert list(store.records()[1]) == [path]
    assert list(store.supersede(())) == [path]
    assert not store.has("1" * 16)
    assert [record.cell_id for record in store.records()[0]] == ["0" * 16]
    assert (store.folder / "superseded" / f"{'1' * 16}.0.json").read_bytes() == damaged


def test_superseded_records_are_kept_one_beside_the_other(store: Store) -> None:
    for wall_s in (1.0, 2.0, 3.0):
        store.write(make_record("0" * 16, "failed", wall_s=wall_s))
        store.supersede(["failed"])
    kept = sorted((store.folder / "superseded").iterdir())
    assert [json.loads(path.read_bytes())["wall_s"] for path in kept] == [1.0, 2.0, 3.0]


def test_only_the_outcomes_named_are_superseded(store: Store) -> None:
    store.write(make_record("0" * 16, "ok"))
    store.write(make_record("1" * 16, "timeout"))
    store.supersede(["failed", "timeout"])
    assert [store.has(digit * 16) for digit in "01"] == [True, False]


def test_interrupted_write_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_records_are_readable_as_the_umask_says(store: Store, tmp_path: Path) -> None:
    store.write(make_record("0" * 16))
    plain = tmp_path / "plain"
    plain.touch()
    record = store.folder / "cells" / f"{'0' * 16}.json"
    assert record.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("place", ["a file", "/proc/no/such"])
def test_folder_that_cannot_be_written_is_one_message(tmp_path: Path, place: str) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(UsageError, match=r"cannot write to .*choose another folder with results="):
        Store(tmp_path / place / "a").create()


def test_plan_that_cannot_be_written_is_one_message(store: Store) -> None:
    (store.folder / "plan.json").mkdir()
    with pytest.raises(UsageError, match=r"cannot write the plan to .*llmatrix run run=a"):
        store.write_plan({})


def test_tidying_clears_only_what_finished_cells_left(store: Store, trial: Any) -> None:
    done, open_ = trial.cell("ok", 1), trial.cell("ok", 2)
    for cell in (done, open_):
        (store.folder / "claims" / f"{cell.cell_id}.1").touch()
        store.scratch(cell).mkdir()
    (store.folder / "cells" / f"{done.cell_id}.json").touch()
    store.tidy()
    assert [path.stem for path in (store.folder / "claims").iterdir()] == [open_.cell_id]
    assert [path.stem for path in (store.folder / "scratch").iterdir()] == [open_.cell_id]


def test_unknown_run_names_the_near_one(store: Store) -> None:
    store.write_plan({})
    with pytest.raises(UsageError, match=r"no run 'aa' in .*did you mean 'a'\?"):
        open_run(store.folder.parent, "aa")


def test_plan_that_cannot_be_read_is_one_message(store: Store) -> None:
    (store.folder / "plan.json").write_text('{"cells": [')
    with pytest.raises(UsageError, match=r"run 'a' has no readable plan\.json"):
        open_run(store.folder.parent, "a").read_plan()


def test_claim_of_a_free_cell_is_ours_and_of_a_done_one_is_not(store: Store, trial: Any) -> None:
    cell = trial.cell()
    with store.claim(cell) as mine:
        assert mine
        with store.claim(cell) as again:
            assert not again
    store.write(make_record(cell.cell_id))
    with store.claim(cell) as mine:
        assert not mine
    assert not list((store.folder / "claims").iterdir())


def hold(folder: str, name: str, held: Any) -> None:
    Leases(Path(folder)).take(name)
    held.set()
    time.sleep(60)


def test_claim_of_a_process_that_died_becomes_ours(store: Store, trial: Any) -> None:
    cell = trial.cell()
    spawn = multiprocessing.get_context("spawn")
    held = spawn.Event()
    arguments = (str(store.folder / "claims"), cell.cell_id, held)
    holder = spawn.Process(target=hold, args=arguments)
    holder.start()
    held.wait(60)
    try:
        with store.claim(cell, wait_s=0.05) as mine:
            assert not mine
    finally:
        holder.kill()
        holder.join()
    holder.close()
    with store.claim(cell) as mine:
        assert mine


def test_record_of_a_holder_that_was_passed_by_is_dropped(store: Store, trial: Any) -> None:
    cell, other = trial.cell(), Store(store.folder)
    far = Leases(store.folder / "claims", beat_s=1e6, machine="far")
    object.__setattr__(store, "claims", far)
    object.__setattr__(other, "claims", Leases(far.folder, lease_s=0.2))
    with store.claim(cell) as mine:
        assert mine
        slow = store.scratch(cell)
        with other.claim(cell, wait_s=20) as taken:
            assert taken
            assert other.scratch(cell) != slow
            store.write(make_record(cell.cell_id, wall_s=1.0))
            assert not store.has(cell.cell_id)
            other.write(make_record(cell.cell_id, wall_s=2.0))
        store.write(make_record(cell.cell_id, wall_s=3.0))
    (record,), _ = store.records()
    assert record.wall_s == 2.0
    assert not list((store.folder / "claims").iterdir())


def test_scratch_of_a_cell_goes_once_it_has_its_record(store: Store, trial: Any) -> None:
    cell = trial.cell()
    for finished in (False, True):
        with store.claim(cell):
            store.scratch(cell).mkdir(parents=True)
            if finished:
                store.write(make_record(cell.cell_id))
        assert bool(list((store.folder / "scratch").iterdir())) is not finished
