"""A recorded cell measured again in a real process: held to its record, never changing its run."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.checks import check
from harness.cli import main
from harness.record import Quantity, Record
from harness.shard import Shard

BOUNDS = {"margin": 0.1, "tolerance": 1e-12}


@pytest.fixture
def recorded(trial: Any, plugin: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Record]:
    """Runs one cell and, on request, falsifies its record."""
    for key in ("PYTHONPATH", "LLMATRIX_CACHE", "TRIAL_MARKS"):
        monkeypatch.setenv(key, trial.environment[key])
    monkeypatch.chdir(trial.folder)

    def run(action: str = "ok", size: int = 3, **changes: Any) -> Record:
        cell = trial.cell(action, size)
        store = trial.prepare([cell])
        Shard(store=store, cells=[cell]).run(lambda event: None)
        (record,) = trial.records()
        store.write(replace(record, **changes))
        return record

    return run


def rerun(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["rerun", *words])
    output = capsys.readouterr()
    return code, output.out + output.err


def number(value: float | None, kind: Any = "count", **changes: Any) -> Quantity:
    return Quantity(value=value, unit="1", better="higher", kind=kind, **changes)


def timed(samples: list[float]) -> Quantity:
    middle = sorted(samples)[len(samples) // 2]
    return Quantity(value=middle, unit="s", better="lower", kind="timing", samples=samples)


def record(environment: dict[str, Any] | None = None, **metrics: Quantity) -> Record:
    return Record(
        cell_id="0" * 16,
        run="a",
        suite="trial",
        technique="trial/behave",
        options={},
        setting={},
        code="0",
        world=1,
        device="cpu",
        command="llmatrix run",
        outcome="ok",
        metrics=metrics,
        started="2026-01-01T00:00:00.000+00:00",
        wall_s=1.0,
        environment=environment or {},
    )


def test_a_record_holds_and_its_run_stays_as_it_is(recorded, trial, capsys):
    one = recorded()
    before = {p: p.read_bytes() for p in trial.store().folder.rglob("*") if p.is_file()}
    code, told = rerun(capsys, f"a/{one.cell_id[:6]}")
    assert code == 0, told
    assert told.rstrip().endswith("the record holds")
    assert "source of suite and technique 0 -> " in told
    assert {p: p.read_bytes() for p in trial.store().folder.rglob("*") if p.is_file()} == before


def test_a_record_is_found_by_its_path_alone(recorded, tmp_path, capsys):
    one = recorded()
    alone = tmp_path / "sent.json"
    alone.write_bytes((tmp_path / "results" / "a" / "cells" / f"{one.cell_id}.json").read_bytes())
    code, told = rerun(capsys, str(alone), "--json")
    document = json.loads(told)
    assert (code, document["holds"], document["cell_id"]) == (0, True, one.cell_id)
    returned = next(m for m in document["metrics"] if m["metric"] == "returned")
    assert (returned["before"], returned["after"], returned["told"]) == (3.0, 3.0, "equal")


def test_a_count_that_is_not_equal_does_not_hold(recorded, capsys):
    one = recorded(metrics={"returned": number(3.0000001)})
    code, told = rerun(capsys, f"a/{one.cell_id}")
    assert code == 1
    assert "the record does not hold: returned differs by 3.3e-08 of its size" in told
    assert rerun(capsys, f"a/{one.cell_id}", "--tolerance", "1e-7")[0] == 0


def test_a_cell_that_never_gives_the_same_does_not_hold(recorded, capsys):
    one = recorded("leave_children", 0)  # returns a process id
    assert rerun(capsys, f"a/{one.cell_id}")[0] == 1


def test_a_failure_is_repeated_too(recorded, capsys):
    one = recorded("raise")
    assert one.outcome == "failed"
    code, told = rerun(capsys, f"a/{one.cell_id}")
    assert code == 0
    assert "failed then, failed now" in told


def test_a_cell_that_fails_now_does_not_hold(recorded, capsys):
    one = recorded("raise", outcome="ok", reason="", metrics={"returned": number(3.0)})
    code, told = rerun(capsys, f"a/{one.cell_id}")
    assert code == 1
    assert "failed: ValueError: size 3 is not to my liking" in told


def test_the_run_s_own_limits_hold_and_running_past_them_is_no_answer(recorded, trial, capsys):
    one = recorded("sleep", 1)
    plan = trial.store().read_plan()
    trial.store().write_plan({**plan, "limits": {"time_s": 0.3, "memory_bytes": 0}})
    code, told = rerun(capsys, f"a/{one.cell_id}")
    assert code == 4
    assert "ran past 0.3 s" in told


def test_a_cell_that_cannot_run_here_is_no_answer(recorded, capsys):
    one = recorded(technique="trial/absent", options={})
    code, told = rerun(capsys, f"a/{one.cell_id}")
    assert code == 4
    assert "needs package_that_does_not_exist" in told


def test_a_time_that_seems_changed_is_measured_twice(recorded, trial, capsys):
    slow = timed([1e6 + n for n in range(30)])  # the cell gives 1, 2 and 3
    one = recorded("mark", metrics={"sampled": slow})
    assert len(trial.marks()) == 1
    code, told = rerun(capsys, f"a/{one.cell_id}")
    assert code == 1
    assert "sampled improved" in told
    assert "(measured twice)" in told
    assert len(trial.marks()) == 3


def test_artifacts_are_made_again_on_request(recorded, trial, monkeypatch, capsys):
    one, caches = recorded(), []
    whole = Shard.run

    def spy(shard: Shard, listen: Any) -> None:
        caches.append(os.environ["LLMATRIX_CACHE"])
        whole(shard, listen)

    monkeypatch.setattr(Shard, "run", spy)
    assert rerun(capsys, f"a/{one.cell_id}")[0] == 0
    assert rerun(capsys, f"a/{one.cell_id}", "--anew")[0] == 0
    assert caches[0] == trial.environment["LLMATRIX_CACHE"] != caches[1]
    assert not Path(caches[1]).exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["b/0"], "no run 'b'"),
        (["a/x"], "has no record 'x'"),
        (["nowhere"], "name a record's path or RUN/CELL_ID"),
        (["marks"], "marks is no record"),
        (["a/{id}", "--margin", "0"], "--margin must be above 0"),
        (["a/{id}", "--tolerance", "-1"], "--tolerance must be from 0"),
        (["a/{id}", "--results", "elsewhere"], "elsewhere"),
    ],
)
def test_bad_input_is_one_message(recorded, trial, capsys, words, told):
    one = recorded()
    (trial.folder / "marks").write_text("no JSON")
    code, output = rerun(capsys, *(word.format(id=one.cell_id) for word in words))
    assert code == 2
    assert told in output
    assert output.count("\n") == 1


def test_what_several_names_begin_with_is_told(recorded, trial, capsys):
    one = recorded()
    trial.store().write(replace(one, cell_id=one.cell_id[:4] + "0" * 12))
    code, told = rerun(capsys, f"a/{one.cell_id[:4]}")
    assert code == 2
    assert f"begins the names of 2 records: {one.cell_id[:4]}" in told


def test_a_skipped_cell_has_nothing_to_repeat(recorded, capsys):
    one = recorded(outcome="skipped", reason="needs a cuda device", metrics={})
    code, told = rerun(capsys, f"a/{one.cell_id}")
    assert code == 2
    assert "was skipped (needs a cuda device)" in told


@pytest.mark.parametrize(
    ("before", "after", "holds", "told"),
    [
        (number(0.1 + 0.2), number(0.3), True, "differs by 1.9e-16"),
        (number(1.0, "quality"), number(1.0 + 1e-9, "quality"), False, "differs by 1.0e-09"),
        (number(0.0, "error"), number(0.0, "error"), True, "equal"),
        (number(0.0, "error"), number(1e-30, "error"), False, "differs by 1.0e+00"),
        (number(None), number(None), True, "does not apply"),
        (number(None), number(1.0), False, "applies only now"),
        (number(1.0), number(None), False, "applies only then"),
        (
            number(0.5, "quality", samples=[0.0, 1.0]),
            number(0.5, "quality", samples=[1.0, 0.0]),
            False,
            "differs",
        ),
        (number(1.0, samples=[1.0]), number(1.0, samples=[1.0, 1.0]), False, "2 samples"),
        (timed([1.0, 1.01, 1.02] * 20), timed([1.01, 1.02, 1.03] * 20), True, "equivalent"),
        (timed([1.0, 1.01, 1.02] * 20), timed([1.3, 1.31, 1.32] * 20), False, "regressed"),
        (timed([1.0, 1.01, 1.02] * 20), timed([0.7, 0.71, 0.72] * 20), False, "improved"),
        (timed([1.0]), timed([9.0]), None, "unresolved"),
    ],
)
def test_a_metric_is_held_to_its_kind(before, after, holds, told):
    (found,) = check(record(x=before), record(x=after), **BOUNDS).checks
    assert found.holds is holds
    assert told in found.told


def test_a_metric_that_is_gone_does_not_hold():
    repeated = check(record(x=number(1.0)), record(), **BOUNDS)
    assert not repeated.holds
    assert repeated.broken == ["x is no longer measured"]


@pytest.mark.parametrize("key", ["machine_class", "cpu", "cores"])
def test_times_of_another_machine_say_nothing_and_counts_do(key):
    then, now = {key: "one"}, {key: "other"}
    fast, slow = timed([1.0, 1.01, 1.02] * 20), timed([9.0, 9.01, 9.02] * 20)
    repeated = check(
        record(then, seconds=fast, n=number(1.0)),
        record(now, seconds=slow, n=number(2.0)),
        **BOUNDS,
    )
    assert [c.holds for c in repeated.checks] == [None, False]


def test_a_machine_that_older_records_do_not_name_is_told_by_its_processor():
    now = {"machine_class": "x", "cpu": "x", "cores": 2, "usable_cores": 2}
    fast, slow = timed([1.0, 1.01, 1.02] * 20), timed([9.0, 9.01, 9.02] * 20)
    same = check(record({"cpu": "x"}, x=fast), record(now, x=slow), **BOUNDS)
    assert [c.holds for c in same.checks] == [False]
