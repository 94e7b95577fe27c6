"""Runs from the command line: resumed, repeated, stopped, launched by joblib."""

import json
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.record import Record

WORDS = ("suite=trial", "technique=trial/behave")


@pytest.fixture
def llmatrix(
    trial: Any, plugin: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Runs `llmatrix run WORDS` in this process; its exit code and output."""
    for key in ("PYTHONPATH", "LLMATRIX_CACHE", "TRIAL_MARKS"):
        monkeypatch.setenv(key, trial.environment[key])
    monkeypatch.chdir(trial.folder)
    before = signal.getsignal(signal.SIGTERM)

    def run(*words: str) -> tuple[int, str]:
        try:
            code = main(["run", *words])
        except SystemExit as end:
            code = end.code
        output = capsys.readouterr()
        return code, output.out + output.err

    yield run
    signal.signal(signal.SIGTERM, before)


def paths(trial: Any) -> dict[str, Path]:
    """Record file of each cell by its action and `n`."""
    found = {}
    for path in (trial.store().folder / "cells").glob("*.json"):
        document = json.loads(path.read_bytes())
        found[f"{document['options']['action']}-{document['setting']['n']}"] = path
    return found


def by_action(records: list[Record]) -> dict[str, str]:
    return {record.options["action"]: record.started for record in records}


def test_run_goes_on_with_the_missing_cells_alone(trial: Any, llmatrix: Any) -> None:
    assert llmatrix(*WORDS, "action=mark", "n=0,1,2,3,4", "run=a")[0] == 0
    found = paths(trial)
    kept = {path: path.read_bytes() for path in found.values()}
    whole = found["mark-1"].read_bytes()
    found["mark-0"].unlink()
    found["mark-1"].write_bytes(whole[: len(whole) // 2])
    found["mark-2"].write_bytes(b"\0" * 100)
    code, output = llmatrix("run=a")
    assert code == 0
    for damaged in (found["mark-1"], found["mark-2"]):
        assert f"set aside {damaged.name}, which is no record" in output
    assert "5 cells, 2 recorded already" in output
    assert len(trial.marks()) == 5 + 3
    assert len(trial.records()) == 5
    for name in ("mark-3", "mark-4"):
        assert found[name].read_bytes() == kept[found[name]]
    code, output = llmatrix("run=a")
    assert code == 0
    assert "nothing is missing" in output
    assert len(trial.marks()) == 5 + 3


def test_retry_repeats_what_it_names_and_keeps_what_was(trial: Any, llmatrix: Any) -> None:
    code, output = llmatrix(*WORDS, "action=ok,raise,segfault,sleep", "time_limit_s=0.9", "run=a")
    assert code == 1
    first = by_action(trial.records())
    outcomes = {record.options["action"]: record.outcome for record in trial.records()}
    expected = {"ok": "ok", "raise": "failed", "segfault": "crashed", "sleep": "timeout"}
    assert outcomes == expected
    assert "llmatrix run run=a retry=failed" in output
    assert llmatrix("run=a")[0] == 1  # nothing missing; the failures are still there
    assert by_action(trial.records()) == first
    assert llmatrix("run=a", "retry=failed", "time_limit_s=0.9")[0] == 1
    second = by_action(trial.records())
    assert {action for action in first if second[action] != first[action]} == {
        "raise",
        "segfault",
        "sleep",
    }
    assert len(list((trial.store().folder / "superseded").iterdir())) == 3
    assert llmatrix("run=a", "retry=all", "time_limit_s=0.9")[0] == 1
    third = by_action(trial.records())
    assert all(third[action] != second[action] for action in first)
    assert len(list((trial.store().folder / "superseded").iterdir())) == 7


@pytest.mark.parametrize("place", ["results=/proc/no/such", "results=taken"])
def test_results_that_cannot_be_written_are_one_message(
    trial: Any, llmatrix: Any, place: str
) -> None:
    (trial.folder / "taken").touch()
    code, output = llmatrix(*WORDS, "n=1", "run=a", place)
    assert code == 2
    assert len(output.splitlines()) == 1
    assert output.startswith("llmatrix: cannot write to ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_run_says_how_to_go_on(trial: Any, number: signal.Signals) -> None:
    process = trial.start("run", *WORDS, "action=mark,sleep", "size=60,61", "n=0,1", "run=a")
    trial.until(lambda: trial.marks() and list(trial.store().folder.glob("cells/*.json")))
    kept = {path: path.read_bytes() for path in trial.store().folder.glob("cells/*.json")}
    process.send_signal(number)
    output = process.communicate(timeout=30)[0].decode()
    assert process.returncode == 130
    assert output.rstrip().endswith("stopped; go on with: llmatrix run run=a")
    assert "Traceback" not in output
    assert {path: path.read_bytes() for path in kept} == kept
    assert len(trial.records()) < 8


def test_full_disk_is_one_message(trial: Any) -> None:
    process = trial.start("run", *WORDS, "action=mark", "n=range(0,60)", "run=a")
    trial.until(lambda: len(list(trial.store().folder.glob("cells/*.json"))) > 1)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 2
    assert "Traceback" not in output
    assert output.splitlines()[-1].startswith("llmatrix: cannot write ")
    assert output.rstrip().endswith("make room and go on with: llmatrix run run=a")
    assert len(trial.records()) > 1


def test_joblib_runs_the_shards(trial: Any) -> None:
    words = (*WORDS, "action=mark", "n=range(0,10)", "run=a", "hydra/launcher=joblib")
    process = trial.start("run", *words, "hydra.launcher.n_jobs=2")
    output = process.communicate(timeout=120)[0].decode()
    assert process.returncode == 0, output
    assert "10 ok" in output
    assert len(trial.records()) == 10
    assert len(trial.marks()) == 10
    assert (trial.folder / "reports" / "a" / "index.html").exists()


def test_ranks_run_from_the_command_line(trial: Any, llmatrix: Any) -> None:
    code, output = llmatrix(*WORDS, "action=sum_over_ranks", "world=2", "run=a")
    assert code == 0, output
    (record,) = trial.records()
    assert record.world == 2
    assert record.metrics["returned"].value == 3.0
