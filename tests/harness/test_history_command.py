"""`llmatrix history`: the course of metrics over runs, and where they changed."""

import random
from dataclasses import replace

import pytest

from harness.cell import digest
from harness.cli import main
from harness.commands.history import series, sparkline
from harness.record import Quantity, Record

DAYS = 12


def cell(day, value, *, technique="toys/a", kind="timing", better="lower", **fields):
    setting, options = fields.pop("setting", {"n": 1}), fields.pop("options", {})
    machine = fields.pop("machine", "m")
    unit = "s" if kind == "timing" else "1"
    quantity = Quantity(value=value, unit=unit, better=better, kind=kind)
    environment = {"machine_class": machine, "commit": f"{day:02d}" * 20}
    return Record(
        cell_id=digest([technique, setting, options, day]), run=f"day-{day:02d}", suite="speed",
        technique=technique, options=options, setting=setting, code="c", world=1, device="cpu",
        command="llmatrix run", outcome="ok", metrics={"seconds": quantity},
        started=f"2026-01-{day + 1:02d}T00:00:00Z", wall_s=1.0, environment=environment, **fields,
    )  # fmt: skip


def course(level, *, spread=0.01, seed=0):
    chance = random.Random(seed)
    return [level(day) * chance.lognormvariate(0, spread) for day in range(DAYS)]


def keep(trial, records):
    for record in records:
        store = trial.store(record.run)
        store.create()
        store.write_plan({"cells": []})
        store.write(record)


@pytest.fixture
def runs(trial, monkeypatch):
    """Twelve days: one technique gets a fifth slower on day 6, another stays."""
    stepped = course(lambda day: 1.2 if day >= 6 else 1.0)
    steady = course(lambda _: 2.0, seed=1)
    keep(trial, (cell(day, value) for day, value in enumerate(stepped)))
    keep(trial, (cell(day, value, technique="toys/b") for day, value in enumerate(steady)))
    monkeypatch.chdir(trial.folder)
    return trial


def rows(text):
    return [line for line in text.splitlines() if line.startswith("| toys")]


def test_a_step_is_told_with_its_run_and_commits(runs, capsys):
    assert main(["history"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("12 runs, 2 series, 1 of them changed")
    stepped, steady = rows(told)
    assert "worse since day-06 (commit 0606060606, after 0505050505)" in stepped
    assert "1.2" in stepped
    assert "since" not in steady


def test_only_what_changed_or_was_asked_for(runs, capsys):
    main(["history", "--changed", "--markdown"])
    told = capsys.readouterr().out
    assert told.startswith("| cell")
    assert [line.split()[1] for line in rows(told)] == ["toys/a"]
    main(["history", "--technique", "toys/b"])
    assert [line.split()[1] for line in rows(capsys.readouterr().out)] == ["toys/b"]
    main(["history", "--technique", "toys/b", "--changed"])
    assert "nothing changed" in capsys.readouterr().out


def test_named_runs_and_margin(runs, capsys):
    early = [f"day-{day:02d}" for day in range(6)]
    main(["history", *early])
    assert capsys.readouterr().out.startswith("6 runs, 2 series, 0 of them changed")
    main(["history", "--margin", "0.5"])
    assert ", 0 of them changed" in capsys.readouterr().out


def test_history_as_a_process(runs):
    process = runs.start("history", "--metric", "seconds")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "since day-06" in output.decode()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["day-00"], "a history needs 2 runs at least, got 1"),
        (["day-00", "day-1"], "no run 'day-1'"),
        (["--metric", "second"], "no metric 'second' of any cell is in 2 of these runs; did you"),
        (["--technique", "no/such"], "no metric 'no/such' of any cell"),
        (["--results", "nowhere"], "got 0 in nowhere"),
    ],
)
def test_bad_usage_is_one_line(runs, capsys, words, message):
    assert main(["history", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def lengths(records):
    return sorted(len(one.records) for one in series(records))


def test_times_of_another_class_of_machine_are_another_series():
    records = [cell(day, 1.0, machine=machine) for day in range(3) for machine in ("m", "x")]
    assert lengths(records) == [3, 3]
    counts = [replace_kind(record, "count") for record in records[::2]]
    assert lengths(counts) == [3]


def replace_kind(record, kind):
    quantity = replace(record.metrics["seconds"], kind=kind)
    return replace(record, metrics={"seconds": quantity})


def test_a_count_is_the_same_on_every_machine():
    records = [cell(day, 5.0, kind="count", machine=f"m{day}") for day in range(4)]
    assert lengths(records) == [4]


def test_an_option_that_older_runs_lack_does_not_end_a_series():
    older = [cell(day, 1.0) for day in range(3)]
    newer = [cell(day, 1.0, options={"window": 8}) for day in range(3, 5)]
    assert lengths([*older, *newer]) == [5]


def test_what_older_runs_do_not_tell_apart_is_not_mixed():
    older = [cell(day, 1.0) for day in range(3)]
    newer = [cell(day, 1.0, options={"window": w}) for day in range(3, 5) for w in (8, 16)]
    assert lengths([*older, *newer]) == [2, 2, 3]


def test_a_metric_without_values_has_no_series():
    records = [cell(day, None) for day in range(3)]
    assert lengths(records) == []


@pytest.mark.parametrize(
    ("values", "bars"),
    [([0, 7], "▁█"), ([1, 1, 1], "▄▄▄"), ([0, 3.5, 7], "▁▅█"), (range(100), "▁")],
)
def test_sparkline(values, bars):
    line = sparkline(values)
    assert line.startswith(bars)
    assert len(line) == min(len(values), 40)


def test_a_time_is_followed_by_its_calm_quarter():
    def timed(day, average="median"):
        record = cell(day, 3.0)
        samples = [1.0, 2.0, 3.0, 4.0, 50.0]
        quantity = replace(record.metrics["seconds"], samples=samples, average=average)
        return replace(record, metrics={"seconds": quantity})

    (one,) = series([timed(0), timed(1)])
    assert one.values == [2.0, 2.0]
    (one,) = series([timed(0, "mean"), timed(1, "mean")])
    assert one.values == [3.0, 3.0]
