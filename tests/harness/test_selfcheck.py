"""The gate measures itself: what it reports follows from the trials, and real trials run."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness import selfcheck
from harness.record import Quantity, Record
from harness.report.trust import selfcheck_of
from harness.selfcheck import SLOWDOWNS, Protocol, Trial, keep, kept, run_trials, summary
from harness.sequential import Looks
from harness.server import ForkServer
from harness.verdict import Change, Verdict


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer(threads=1)
    yield server
    server.close()


def test_real_trials_see_much_more_work_and_use_the_rounds_they_say(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selfcheck, "SLOWDOWNS", (0.0, 3.0))
    protocol = Protocol(rounds=4, looks=Looks(generations=6, n=2))
    (trial,) = run_trials(1, protocol, server=server, folder=tmp_path)
    assert trial.reference.generations == [4] * 6
    assert trial.changes[3.0].verdict == "regressed"
    assert trial.changes[3.0].value > 2
    assert trial.changes[3.0].paired
    assert trial.rounds[3.0] in (16, 24)
    (block,) = list(tmp_path.iterdir())[:1]
    assert block.is_dir()  # scratch went where it was told


def change(verdict: Verdict, value: float) -> Change:
    return Change(
        baseline=1.0, candidate=value, effect="ratio", value=value, low=None, high=None, p=None,
        verdict=verdict, margin=0.01, paired=True,
    )  # fmt: skip


def trial(*verdicts: Verdict, same: float = 1.0, rounds: int = 30) -> Trial:
    quantity = Quantity(value=1.0, unit="ms", better="lower", kind="timing")
    values = (same, *(1 + slowdown for slowdown in SLOWDOWNS[1:]))
    changes = map(change, verdicts, values)
    return Trial(
        reference=quantity,
        others=dict.fromkeys(SLOWDOWNS, quantity),
        changes=dict(zip(SLOWDOWNS, changes, strict=True)),
        rounds=dict.fromkeys(SLOWDOWNS, rounds),
    )


def test_summary_counts_alarms_finds_and_rounds() -> None:
    good = trial("equivalent", "unresolved", "regressed", "regressed")
    bad = trial("improved", "regressed", "unresolved", "regressed", same=0.95, rounds=60)
    check = summary([good] * 19 + [bad], Protocol())
    assert (check.trials, check.false_alarms) == (20, 1)
    assert check.found == {"0.02": 0.05, "0.05": 0.95, "0.1": 1.0}
    assert check.smallest_found == 0.05
    assert check.rounds["0.05"] == pytest.approx(31.5)
    assert 0.03 < check.noise < 0.053
    assert summary([bad], Protocol()).smallest_found == 0.1


def test_it_is_kept_for_the_class_of_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMATRIX_CACHE", str(tmp_path))
    assert kept() is None
    assert selfcheck.noise_here() == 0
    check = summary([trial("equivalent", "regressed", "regressed", "regressed")], Protocol())
    path = keep(check)
    assert kept() == check
    assert kept("another machine") is None
    keep(replace(check, noise=0.03))
    assert selfcheck.noise_here() == 0.03
    path.write_text(json.dumps({"trials": 3}))
    assert kept() is None


def test_it_stands_beside_the_records_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMATRIX_CACHE", str(tmp_path / "cache"))
    check = summary([trial("equivalent", "regressed", "regressed", "regressed")], Protocol())
    keep(check)
    record = Record(
        cell_id="0" * 16, run="a", suite="s", technique="f/t", options={}, setting={}, code="",
        world=1, device="cpu", command="", outcome="ok", started="", wall_s=0.0,
        environment={"machine_class": check.machine_class},
    )  # fmt: skip
    assert selfcheck_of(tmp_path, [record]) == check
    assert not (tmp_path / selfcheck.FILE).exists()
    assert selfcheck_of(tmp_path, [record], keep=True) == check
    keep(replace(check, trials=7))  # the machine is measured again later
    assert selfcheck_of(tmp_path, [record]) == check
    other = replace(record, environment={"machine_class": "another"})
    (tmp_path / selfcheck.FILE).unlink()
    assert selfcheck_of(tmp_path, [other], keep=True) is None
