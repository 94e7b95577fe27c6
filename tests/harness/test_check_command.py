"""`llmatrix check` and `compare` as a CI calls them: what they read, print, write and return."""

import random
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from junitparser import JUnitXml

from harness.cell import digest
from harness.cli import main
from harness.environment import machine_class
from harness.gate import sides
from harness.record import Quantity, Record
from harness.revisions import live
from harness.selfcheck import FILE, Selfcheck, write
from harness.selfcheck import keep as keep_selfcheck
from harness.store import Store
from harness.verdict import Rule
from tests.harness.repository import CELL, made


def cell(run, technique="toys/a", seconds=1.0, outcome="ok", seed=0):
    chance = random.Random(f"{seconds} {seed}")
    samples = [seconds * chance.lognormvariate(0, 0.005) for _ in range(60)]
    quantity = Quantity(
        value=seconds, samples=samples, unit="s", better="lower", kind="timing"
    )  # fmt: skip
    return Record(
        cell_id=digest([technique]), run=run, suite="speed", technique=technique, options={},
        setting={"n": 1}, code="c", world=1, device="cpu", command=f"llmatrix run {technique}",
        outcome=outcome, reason="" if outcome == "ok" else "needs 3 GiB",
        metrics={"seconds": quantity} if outcome == "ok" else {},
        started="2026-01-01T00:00:00Z", wall_s=1.0, environment={"machine_class": "m"},
    )  # fmt: skip


def keep(trial, run, *cells):
    store = trial.store(run)
    store.create()
    store.write_plan({"cells": []})
    for record in cells:
        store.write(replace(record, run=run))
    return store


@pytest.fixture
def runs(trial, monkeypatch):
    """A folder of runs: the old one, the same again, slower, broken, gone, and noisy."""
    keep(trial, "old", cell("old"), cell("old", "toys/b"))
    keep(trial, "same", cell("same", seed=1), cell("same", "toys/b", seed=1))
    keep(trial, "slow", cell("slow", seconds=1.1), cell("slow", "toys/b"))
    keep(trial, "broken", cell("broken"), cell("broken", "toys/b", outcome="oom"))
    keep(trial, "all-broken", cell("all-broken", outcome="oom"))
    keep(trial, "other", cell("other", "toys/z"))
    near = [cell("near", seconds=1.01), cell("near", "toys/b", seed=1)]
    keep(trial, "near", *near)  # as much slower as does not matter: it stays unresolved
    monkeypatch.chdir(trial.folder)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.setenv("LLMATRIX_CACHE", str(trial.folder / "cache"))
    return trial


@pytest.mark.parametrize(
    ("candidate", "words", "code", "last"),
    [
        ("same", [], 0, "passed: "),
        ("slow", [], 1, "failed: 1 regressed"),
        ("slow", ["--margin", "0.2"], 0, "passed: "),
        ("slow", ["--fail-on", "unresolved"], 0, "passed: "),
        ("broken", [], 1, "failed: 1 broken"),
        ("near", [], 0, "passed: "),
        ("near", ["--fail-on", "regressed,unresolved"], 3, "failed: 1 unresolved"),
        ("all-broken", [], 4, "failed: nothing could be compared: none of the 1 cells"),
        ("other", [], 4, "failed: nothing could be compared: no cell is ok on both sides"),
    ],
)
def test_exit_codes(runs, capsys, candidate, words, code, last):
    assert main(["check", "old", candidate, *words]) == code
    assert capsys.readouterr().out.splitlines()[-1].startswith(last)


def test_check_as_a_process(runs):
    process = runs.start("check", "old", "slow")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    text = output.decode()
    assert text.startswith("slow against old: 1 regressed")
    assert "not confirmed: these are stored records" in text


def test_compare_never_fails(runs, capsys):
    assert main(["compare", "old", "slow"]) == 0
    told = capsys.readouterr().out
    assert "❌ regressed" in told
    assert "toys/b" not in told
    main(["compare", "old", "slow", "--all"])
    assert "toys/b" in capsys.readouterr().out


def test_compare_writes_a_page(runs, capsys):
    assert main(["compare", "old", "slow", "--html", "out/page.html"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "out/page.html"
    assert "slow against old" in Path("out/page.html").read_text(encoding="utf-8")


def test_runs_are_named_by_folder_too(runs, capsys):
    folder = runs.store("old").folder
    elsewhere = folder.parent.parent / "elsewhere"
    folder.rename(elsewhere)
    assert main(["check", str(elsewhere), "results/slow"]) == 1
    assert main(["check", "./elsewhere", "slow"]) == 1
    assert f"slow against {Path('elsewhere')}" in capsys.readouterr().out.replace("./", "")


def test_what_is_written(runs, capsys, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(runs.folder / "summary.md"))
    words = ["--junit", "out/junit.xml", "--markdown", "out/comment.md", "--github"]
    assert main(["check", "old", "slow", *words]) == 1
    document = JUnitXml.fromfile("out/junit.xml")
    assert (document.tests, document.failures) == (2, 1)
    comment = Path("out/comment.md").read_text(encoding="utf-8")
    assert comment == Path("summary.md").read_text(encoding="utf-8")
    assert comment.startswith("### llmatrix: slow against old: 1 regressed")
    told = capsys.readouterr().out
    assert re.search(
        r"^::error title=regressed%3A toys/a seconds::speed toys/a n=1: ", told, re.MULTILINE
    )


def test_a_file_that_is_no_record_is_told(runs, capsys):
    path = next((runs.store("slow").folder / "cells").iterdir())
    path.write_bytes(path.read_bytes()[:100])
    main(["check", "old", "slow"])
    assert f"warning: results/slow/cells/{path.name} is no record and was left out" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "old", "slwo"], "no run 'slwo' in results; did you mean 'slow'"),
        (["check", "old"], "required: candidate (`llmatrix check --help`"),
        (["check", "old", "slow", "n=1"], "'n=1' is too much: stored runs are compared whole"),
        (["check", "old", "slow", "--git"], "--git needs the cells to measure: --git old slow"),
        (["check", "old", "slow", "--margin", "5"], "between 0 and 1 (0.01 is one per cent)"),
        (["check", "old", "slow", "--margin", "x"], "got 'x'"),
        (["check", "old", "slow", "--budget", "0"], "seconds above 0, got '0'"),
        (["check", "old", "slow", "--fail-on", "regresed"], "'regresed' is nothing to fail on"),
        (["check", "old", "slow", "--junit", "results/slow/plan.json/x"], "cannot write"),
        (["check", "old", "slow", "--markdown", "results/slow/plan.json/x"], "cannot write"),
        (["compare", "old", "slow", "--html", "results/slow/plan.json/x"], "cannot write"),
        (["compare", "old", "slow", "--fail-on", "regressed"], "unrecognized arguments"),
    ],
)
def test_bad_usage_is_one_line(runs, capsys, words, message):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["check", "--git", "v1", ".", "suite=s", "n=1", "--margin", "0.05", "--budget", "9"],
        ["check", "v1", ".", "--git", "suite=s", "n=1", "--margin=0.05", "--budget=9"],
        ["check", "v1", ".", "--margin=0.05", "suite=s", "--git", "n=1", "--budget=9"],
    ],
)
def test_git_asks_for_a_live_measurement(runs, monkeypatch, words):
    asked = []

    def measure(request):
        asked.append(request)
        old, new = runs.store("old").records()[0], runs.store("same").records()[0]
        return sides.compare(old, new, request.rule)

    monkeypatch.setattr(sides, "live", measure)
    assert main(words) == 0
    (request,) = asked
    assert (request.baseline, request.candidate) == ("v1", ".")
    assert request.overrides == ("suite=s", "n=1")
    assert request.rule == Rule(margin=0.05)
    assert request.budget_s == 9
    assert request.confirm
    assert re.fullmatch(r"check-v1-tree-\d{8}T\d{6}", request.run)


def test_the_example_workflow_calls_the_gate_as_it_is(runs, monkeypatch):
    root = Path(__file__).parents[2]
    workflow = yaml.safe_load((root / ".github/workflows/performance.yml").read_text("utf-8"))
    steps = [step.get("run", "") for step in workflow["jobs"]["gate"]["steps"]]
    (command,) = (step for step in steps if "llmatrix check" in step)
    asked = []

    def measure(request):
        asked.append(request)
        return sides.compare(*(runs.store(name).records()[0] for name in ("old", "same")))

    monkeypatch.setattr(sides, "live", measure)
    assert main(shlex.split(command)[1:]) == 0
    assert (asked[0].baseline, asked[0].candidate) == ("HEAD^1", "HEAD")
    experiments = [path.stem for path in (root / "conf" / "experiment").glob("*.yaml")]
    assert asked[0].overrides[0].removeprefix("experiment=") in experiments
    assert {"junit.xml", "comparison.md"} <= {path.name for path in runs.folder.iterdir()}


def selfcheck(noise, machine):
    """What `llmatrix selfcheck` would have kept."""
    return Selfcheck(
        trials=40, false_alarms=0, found={"0.05": 1.0}, rounds={"0.0": 80.0, "0.05": 80.0},
        rounds_at_most=200, smallest_found=0.05, noise=noise, moment="2026-01-01", load=[1.0],
        machine_class=machine,
    )  # fmt: skip


def test_a_slowdown_within_the_noise_of_the_runs_machine_is_none(runs, capsys):
    keep_selfcheck(selfcheck(0.2, "m"))
    assert main(["check", "old", "slow"]) == 0
    told = capsys.readouterr().out
    assert "the margin of times is 20.00% instead of 1.00%" in told
    assert "2 equivalent within 0.2 not shown" in told
    keep_selfcheck(selfcheck(0.004, "m"))
    write(selfcheck(0.03, "m"), runs.store("slow").folder / FILE)  # as it was on that day
    assert main(["check", "old", "slow"]) == 1
    assert "the margin of times is 3.00% instead of 1.00%" in capsys.readouterr().out


def test_live_measurements_reckon_with_the_noise_of_this_machine(runs, monkeypatch):
    asked = []

    def measure(request):
        asked.append(request)
        return sides.compare(*(runs.store(name).records()[0] for name in ("old", "same")))

    monkeypatch.setattr(sides, "live", measure)
    keep_selfcheck(selfcheck(0.03, machine_class()))
    assert main(["check", "--git", "v1", ".", "suite=s"]) == 0
    assert asked[0].rule == Rule(noise=0.03)


def test_compare_does_not_measure_twice_and_says_so(runs, monkeypatch, capsys):
    def measure(request):
        assert not request.confirm
        return sides.compare(*(runs.store(name).records()[0] for name in ("old", "slow")))

    monkeypatch.setattr(sides, "live", measure)
    assert main(["compare", "--git", "v1", "v2", "suite=s", "--run", "mine"]) == 0
    told = capsys.readouterr().out
    assert "not confirmed by a second measurement: `llmatrix check --git` confirms" in told


def test_a_slower_revision_fails_the_gate(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LLMATRIX_CACHE", str(tmp_path / "cache"))
    repository = made(tmp_path / "repository")
    repository.commit("first", steps=200)
    repository.commit("slow", steps=400)
    monkeypatch.setattr(
        sides, "live", lambda request: live(replace(request, root=repository.folder))
    )
    monkeypatch.chdir(tmp_path)
    words = ["--git", "HEAD~1", "HEAD", *CELL, "--run", "x", "--budget", "60"]
    assert main(["check", *words, "--junit", "junit.xml"]) == 1
    told = capsys.readouterr().out
    assert told.startswith("HEAD against HEAD~1: 1 regressed, 1 equivalent")
    assert "not confirmed" not in told
    (suite,) = JUnitXml.fromfile("junit.xml")
    assert {p.name: p.value for p in suite.properties()}["confirmed"] == "true"
    assert {run.name for run in Path("results").iterdir()} == {"x-baseline", "x-candidate"}
    assert main(["check", "x-baseline", "x-candidate"]) == 1
    assert Store(Path("results/x-baseline")).records()[0]
