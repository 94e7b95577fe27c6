"""A sample of a run measured again under changed conditions, in real processes."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cell import Cell
from harness.cli import main
from harness.commands.audit import draw
from harness.record import Quantity, Record
from harness.shard import Shard
from harness.store import Store


@pytest.fixture
def run(trial: Any, plugin: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Store]:
    """Measures cells as run `a`, then falsifies their records by what `change` makes of them."""
    for key in ("PYTHONPATH", "LLMATRIX_CACHE", "TRIAL_MARKS"):
        monkeypatch.setenv(key, trial.environment[key])
    monkeypatch.chdir(trial.folder)

    def measure(*cells: Cell, change: Callable[[Record], Record] = lambda one: one) -> Store:
        store = trial.prepare(cells)
        Shard(store=store, cells=cells).run(lambda event: None)
        for record in trial.records():
            store.write(change(record))
        return store

    return measure


def audit(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["audit", "a", *words])
    return code, capsys.readouterr().out


def with_metric(record: Record, **changes: Any) -> Record:
    quantity = replace(record.metrics["returned"], **changes)
    return replace(record, metrics={**record.metrics, "returned": quantity})


def test_cells_that_hold_are_told_with_every_condition(run, trial, capsys):
    store = run(trial.cell(size=1), trial.cell(size=2), trial.cell(size=3, timed=True))
    records = {p: p.read_bytes() for p in store.folder.glob("cells/*")}
    code, told = audit(capsys)
    assert code == 0, told
    assert told.rstrip().endswith("3 cells, all hold")
    document = json.loads((store.folder / "audit.json").read_bytes())
    assert document["holds"] is True
    assert len(document["cells"]) == 3
    for cell in document["cells"]:
        assert list(cell["conditions"]) == ["fresh", "cold", "order", "seed"]
        assert all(one["holds"] for one in cell["conditions"].values())
        assert any(line.startswith("source of suite") for line in cell["differs"])
    assert {p: p.read_bytes() for p in store.folder.glob("cells/*")} == records


def test_a_cell_that_does_not_hold_is_flagged_with_its_condition(run, trial, capsys):
    run(trial.cell(size=1), trial.cell("leave_children", 0))  # the second returns a process id
    code, told = audit(capsys, "--conditions", "fresh,order", "--json")
    document = json.loads(told)
    assert code == 1
    assert document["holds"] is False
    assert [cell["holds"] for cell in document["cells"]] == [True, False]
    broken = document["cells"][1]["conditions"]
    assert list(broken) == ["fresh", "order"]
    assert "differs by" in broken["fresh"]["metrics"][0]["told"]


def test_hash_seeds_are_changed_and_nothing_is_imported_ahead(run, trial, monkeypatch, capsys):
    seen: list[tuple[str | None, bool]] = []
    whole = Shard.run

    def spy(shard: Shard, listen: Any) -> None:
        seen.append((os.environ.get("PYTHONHASHSEED"), shard.warm))
        whole(shard, listen)

    run(trial.cell())
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    monkeypatch.setattr(Shard, "run", spy)
    assert audit(capsys, "--conditions", "fresh,cold")[0] == 0
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    assert audit(capsys, "--conditions", "cold")[0] == 0
    assert seen == [(None, True), ("1", False), ("2", False)]


def test_the_order_is_reversed_and_artifacts_are_made_anew(run, trial, monkeypatch, capsys):
    cells = [trial.cell("mark", size) for size in (1, 2, 3)]
    run(*cells)
    caches = []
    whole = Shard.run

    def spy(shard: Shard, listen: Any) -> None:
        caches.append(os.environ["LLMATRIX_CACHE"])
        whole(shard, listen)

    monkeypatch.setattr(Shard, "run", spy)
    assert audit(capsys, "--conditions", "fresh,order")[0] == 0
    assert trial.marks() == [1, 2, 3] * 2 + [3, 2, 1]
    assert caches[0] == trial.environment["LLMATRIX_CACHE"] != caches[1]
    assert not Path(caches[1]).exists()


def test_with_another_seed_only_times_must_hold(run, trial, capsys):
    """The records say 5 where 1 comes back: a count may change with the inputs, a time may not."""
    store = run(trial.cell(), change=lambda one: with_metric(one, value=5.0))
    code, told = audit(capsys, "--conditions", "seed")
    assert code == 0
    assert "with another seed:" in told
    assert "returned differs by 8.0e-01" in told
    slow = Quantity(value=1e6, unit="s", better="lower", kind="timing",
                    samples=[1e6 + n for n in range(30)])  # fmt: skip
    (record,) = trial.records()
    store.write(replace(record, metrics={"sampled": slow}))
    code, told = audit(capsys, "--conditions", "seed")
    assert code == 1
    assert "seed: sampled improved" in told


def test_every_suite_is_in_the_sample_and_the_draw_is_seeded(run, trial, monkeypatch):
    monkeypatch.setattr(Shard, "run", lambda shard, listen: None)
    store = run()
    for n in range(40):
        cell = replace(trial.cell(timed=n == 0), setting={"n": n})
        store.write(
            Record(
                cell_id=cell.cell_id, run="a", suite=cell.suite, technique=cell.technique,
                options={}, setting={"n": n}, code="0", world=1, device="cpu", command="",
                outcome="failed" if n == 5 else "ok", started=f"2026-01-01T00:00:{n:02}+00:00",
                wall_s=1.0,
            )
        )  # fmt: skip
    draws = [[r.setting["n"] for r in draw(store, size=8, seed=s)[0]] for s in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    for drawn in draws:
        assert len(drawn) == len(set(drawn)) == 8
        assert 0 in drawn  # the only cell of its suite
        assert 5 not in drawn
    assert len(draw(store, size=1, seed=0)[0]) == 2
    assert len(draw(store, size=100, seed=0)[0]) == 39


def test_what_cannot_run_here_is_left_out_by_name(run, trial, capsys):
    run(
        trial.cell(size=1),
        trial.cell(size=2),
        change=lambda one: (
            replace(one, technique="trial/absent") if one.options["size"] == 2 else one
        ),
    )
    code, told = audit(capsys, "--conditions", "fresh")
    assert code == 0
    assert "cannot be repeated here: trial trial/absent" in told
    assert "needs package_that_does_not_exist" in told
    assert "1 cells, all hold" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a", "--sample", "0"], "--sample must be at least 1, got 0"),
        (["a", "--conditions", "frseh"], "did you mean 'fresh'"),
        (["b"], "no run 'b'"),
        (["a"], "nothing to repeat here: no cell ended well"),
    ],
)
def test_bad_input_is_one_message(run, trial, capsys, words, told):
    run(trial.cell("raise"))
    assert main(["audit", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
