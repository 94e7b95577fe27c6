"""Two revisions, each in a worktree, measured in turns: found, not found, and left clean."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness.commands import plan
from harness.comparison import Comparison
from harness.errors import UsageError
from harness.revisions import Live, live
from harness.sequential import Looks
from harness.store import Store
from harness.worktrees import checkouts
from tests.harness.repository import CELL, Repository, made


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = made(tmp_path_factory.mktemp("repository"))
    repository.commit("first", steps=200)
    repository.git("tag", "first")
    repository.commit("slow", steps=600)
    repository.git("tag", "slow")
    repository.commit("wrong", steps=200, returned=0.5)
    repository.git("tag", "wrong")
    return repository


def request(repository: Repository, folder: Path, baseline: str, candidate: str) -> Live:
    return Live(
        baseline=baseline,
        candidate=candidate,
        overrides=CELL,
        results=folder,
        run="x",
        budget_s=60.0,
        looks=Looks(n=2, generations=8),
        root=repository.folder,
        say=lambda _line: None,
    )


def verdicts(comparison: Comparison) -> dict[str, str]:
    return {row.metric: row.change.verdict for row in comparison.rows}


def test_slower_revision_is_found_and_confirmed(repository: Repository, tmp_path: Path) -> None:
    asked = replace(request(repository, tmp_path, "first", "slow"), confirm=True)
    comparison = live(asked)
    assert verdicts(comparison) == {"walk_ms": "regressed", "returned": "equivalent"}
    (row,) = (row for row in comparison.rows if row.metric == "walk_ms")
    assert row.change.paired
    assert row.change.value > 1.2
    assert len(row.candidate.metrics["walk_ms"].generations) < 8  # was sure at the first look
    for side, revision in (("baseline", "first"), ("candidate", "slow")):
        (record,) = Store(tmp_path / f"x-{side}").records()[0]
        commit = repository.git("rev-parse", f"{revision}^{{commit}}")
        assert (record.environment["commit"], record.environment["dirty"]) == (commit, False)
        assert record.relay == row.candidate.relay
    assert "worktree" in repository.git("worktree", "list", "--porcelain")
    assert repository.git("worktree", "list").count("\n") == 0


def test_wrong_result_is_found_whatever_the_noise(repository: Repository, tmp_path: Path) -> None:
    asked = replace(
        request(repository, tmp_path, "first", "wrong"), looks=Looks(n=1, generations=2)
    )
    assert verdicts(live(asked))["returned"] == "regressed"


def test_change_that_a_second_measurement_lacks_is_not_believed(
    repository: Repository, tmp_path: Path
) -> None:
    """After the first measurement, the slow revision is swapped for the fast one."""
    asked = replace(request(repository, tmp_path, "first", "slow"), confirm=True)

    def swap(line: str) -> None:
        if "once more" in line:
            tree = next(
                Path(line.removeprefix("worktree "))
                for line in repository.git("worktree", "list", "--porcelain").splitlines()
                if line.startswith("worktree ") and _steps(line.removeprefix("worktree ")) == 600
            )
            source = tree / "impls" / "pace" / "walk.py"
            source.write_text(source.read_text().replace("600", "200"))

    comparison = live(replace(asked, say=swap))
    (row,) = (row for row in comparison.rows if row.metric == "walk_ms")
    assert row.change.verdict == "unresolved"
    assert row.change.reason.startswith("not confirmed: ")


def _steps(tree: str) -> int:
    text = (Path(tree) / "impls" / "pace" / "walk.py").read_text()
    return int(text.partition("range(")[2].partition(" ")[0])


def test_working_tree_is_a_side_too(repository: Repository, tmp_path: Path) -> None:
    asked = replace(request(repository, tmp_path, "first", "."), looks=Looks(n=1, generations=1))
    comparison = live(asked)
    assert comparison.candidate == "."
    (record,) = Store(tmp_path / "x-candidate").records()[0]
    assert record.metrics["returned"].value == 0.5  # the last commit's


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": "nowhere"}, "no commit is called 'nowhere'"),
        ({"overrides": ("suite=speed", "technique=pace/run")}, "no technique matches 'pace/run'"),
        ({"overrides": (*CELL, "round=3")}, "did you mean 'rounds'"),
    ],
)
def test_what_cannot_be_measured_is_one_message(
    repository: Repository, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    asked = replace(request(repository, tmp_path, "first", "slow"), **change)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        live(asked)
    assert repository.git("worktree", "list").count("\n") == 0


def test_worktree_of_a_killed_process_is_forgotten(repository: Repository) -> None:
    with checkouts("slow", root=repository.folder) as (side,):
        tree = side.root
        subprocess.run(["rm", "-r", str(tree)], check=True)
        with checkouts("first", root=repository.folder) as (other,):
            assert other.root.exists()
            listed = repository.git("worktree", "list", "--porcelain")
            assert str(tree) not in listed
        tree.mkdir()  # so that leaving finds something to remove
        repository.git("worktree", "add", "--detach", "--quiet", "--force", str(tree), "slow")


def test_the_harness_plans_both_sides_by_itself(repository: Repository) -> None:
    assert plan.__name__ == "harness.commands.plan"
    with checkouts("first", "slow", root=repository.folder) as sides:
        first, slow = ([cell.code for cell in side.plan(CELL)] for side in sides)
    assert len(first) == len(slow) == 1
    assert first != slow
