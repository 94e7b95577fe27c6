"""The first bad commit: by halving in theory, and in a repository whose cells are measured."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.bisection import search
from harness.cli import main
from harness.commands import bisect
from harness.comparison import Compared, Comparison
from harness.errors import UsageError
from harness.record import Quantity, Record
from harness.revisions import Live
from harness.verdict import Change, Rule, judge
from tests.harness.repository import CELL, Repository, made

COMMITS = [str(n) for n in range(9)]


@pytest.mark.parametrize("first", range(9))
def test_the_first_bad_commit_is_found_in_few_questions(first):
    asked = []

    def ask(commit):
        asked.append(commit)
        return "bad" if int(commit) >= first else "good"

    assert search(COMMITS, ask) == [str(first)]
    assert len(asked) == len(set(asked)) <= 4
    assert "8" not in asked  # it is known to be bad


@pytest.mark.parametrize(
    ("first", "skipped"), list(itertools.product(range(9), ("4", "345", "0", "67")))
)
def test_commits_that_cannot_be_judged_are_passed_over(first, skipped):
    def ask(commit):
        if commit in skipped:
            return "skip"
        return "bad" if int(commit) >= first else "good"

    found = search(COMMITS, ask)
    assert str(first) in found
    assert set(found[:-1]) <= set(skipped)
    assert found == sorted(found)


def test_a_row_of_one_needs_no_question():
    assert search(["0"], lambda commit: pytest.fail("asked")) == ["0"]


@pytest.mark.parametrize(
    ("before", "after", "margin"),
    [(1.0, 1.21, 0.1), (1.21, 1.0, 0.1), (1.0, 1.001, 0.01), (0.0, 3.0, 1.5), (-2.0, -3.0, 0.25)],
)
def test_half_of_a_change_tells_with_from_without(before, after, margin):
    one, other = (
        Quantity(value=v, unit="1", better="lower", kind="count") for v in (before, after)
    )
    change = judge(one, other, Rule(), paired=False)
    assert bisect.half_of(change) == pytest.approx(margin)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Six commits; the fourth, `worse`, makes the cell worse, the third cannot be measured."""
    repository = made(tmp_path / "repository")
    for name in ("good", "same", "broken", "worse", "later", "latest"):
        returned = 1.0 if name in ("good", "same", "broken") else 0.5
        if name == "broken":
            repository.commit("broken", returned=returned)
            source = repository.folder / "impls" / "pace" / "walk.py"
            source.write_text(source.read_text() + "\n1 / 0\n")
            repository.git("commit", "--quiet", "--all", "--amend", "--no-edit", "--author=t <t@t>")
        else:
            repository.commit(name, returned=returned)
        repository.git("tag", name)
    monkeypatch.setattr(bisect, "ROOT", repository.folder)
    monkeypatch.chdir(tmp_path)
    return repository


def change(value: float, verdict: Any) -> Change:
    return Change(
        baseline=1.0, candidate=value, effect="ratio", value=value, low=value - 0.01,
        high=value + 0.01, p=0.5, verdict=verdict, margin=0.1, paired=True,
    )  # fmt: skip


@pytest.fixture
def judged(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[str, Any]], list[Live]]:
    """Stands in for the measurement: what each tag's commit is found to be."""

    def use(answers: dict[str, Any]) -> list[Live]:
        requests: list[Live] = []
        hashes = {repository.git("rev-parse", tag): tag for tag in repository.git("tag").split()}

        def measured(request: Live) -> Comparison:
            requests.append(request)
            answer = answers[hashes.get(request.candidate, request.candidate)]
            if isinstance(answer, list):
                answer = answer.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return comparison_of(answer)

        monkeypatch.setattr(bisect, "live", measured)
        return requests

    return use


def comparison_of(changes: dict[str, Change] | str) -> Comparison:
    quantity = Quantity(value=1.0, unit="ms", better="lower", kind="timing")
    ok = Record(
        cell_id="0" * 16, run="a", suite="speed", technique="pace/walk", options={}, setting={},
        code="0", world=1, device="cpu", command="", outcome="ok", started="", wall_s=1.0,
        metrics={"walk_ms": quantity, "memory": quantity},
    )  # fmt: skip
    empty = Comparison(
        baseline="a", candidate="b", rule=Rule(), rows=(), only_baseline=(), only_candidate=(),
        broken=(), warnings=(), overall=None,
    )  # fmt: skip
    if isinstance(changes, str):
        return replace(empty, broken=((ok, replace(ok, outcome="oom", reason=changes)),))
    rows = [
        Compared(metric=name, baseline=ok, candidate=ok, change=one)
        for name, one in changes.items()
    ]
    return replace(empty, rows=tuple(rows))


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["bisect", *words])
    output = capsys.readouterr()
    return code, output.out or output.err


WORSE = {"walk_ms": change(1.44, "regressed"), "memory": change(1.1, "regressed")}
SAME = {"walk_ms": change(1.0, "equivalent"), "memory": change(1.1, "regressed")}
OPEN = {"walk_ms": change(1.2, "unresolved")}


def test_the_metric_that_got_worst_is_followed(judged, capsys):
    requests = judged(
        {"latest": WORSE, "broken": UsageError("cannot be planned"), "same": SAME, "worse": WORSE,
         "later": WORSE}
    )  # fmt: skip
    code, told = run(capsys, "good", "latest", *CELL)
    assert code == 3  # `broken` could not be judged and lies just before
    assert "walk_ms regressed ×1.44 [1.43, 1.45]: looking for 20.00% or more" in told
    assert "cannot be planned" in told
    assert "one of these 2 commits" in told
    assert requests[0].confirm
    assert {request.baseline for request in requests} == {"good"}
    assert all(request.rule.margin == pytest.approx(0.2) for request in requests[1:])
    assert len({request.run for request in requests}) == len(requests)


def test_the_metric_and_the_margin_that_are_named_are_used(judged, capsys):
    requests = judged(dict.fromkeys(("latest", "same", "broken", "worse", "later"), WORSE))
    words = ("good", "latest", *CELL, "--metric", "memory", "--margin", "0.05")
    code, told = run(capsys, *words)
    assert code == 0
    assert "memory regressed ×1.1 [1.09, 1.11]: looking for 5.00% or more" in told
    assert "first bad commit" in told
    assert told.rstrip().endswith(" same")
    assert requests[-1].rule.margin == 0.05


def test_what_stays_open_is_measured_longer_and_then_passed_over(judged, capsys):
    requests = judged(
        {"latest": WORSE, "same": SAME, "broken": [OPEN, SAME], "worse": [OPEN, OPEN],
         "later": WORSE}
    )  # fmt: skip
    code, told = run(capsys, "good", "latest", *CELL, "--budget", "10")
    assert code == 3
    assert "unresolved ×1.2 [1.19, 1.21]" in told
    assert "one of these 2 commits" in told
    assert [request.budget_s for request in requests].count(30.0) == 2


def test_a_commit_whose_cell_fails_is_passed_over(judged, capsys):
    judged({"latest": WORSE, "same": SAME, "broken": "no room", "worse": WORSE, "later": WORSE})
    code, told = run(capsys, "good", "latest", *CELL)
    assert code == 3
    assert "its cell oom: no room" in told


def test_a_bad_revision_that_does_not_run_is_no_answer(judged, capsys):
    judged({"latest": "no room"})
    with pytest.raises(SystemExit) as end:
        main(["bisect", "good", "latest", *CELL])
    assert end.value.code == 4
    assert "latest: its cell oom: no room" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["good", "latest", *CELL], "latest is not worse than good: walk_ms equivalent ×1"),
        (["good", "latest", *CELL, "--metric", "walk"], "no metric 'walk'; did you mean 'walk_ms'"),
        (["latest", "good", *CELL], "good does not come after latest"),
        (["good", "good", *CELL], "good does not come after good"),
        (["good", "nowhere", *CELL], "no commit is called 'nowhere'"),
        (["good", "latest", *CELL, "rounds=3,4"], "name one cell: these words plan 2"),
        (["good", "latest", "a/0"], "there is no folder results"),
    ],
)
def test_bad_input_is_one_message(judged, capsys, words, told):
    judged({"latest": {"walk_ms": change(1.0, "equivalent")}})
    code, output = run(capsys, *words)
    assert code == 2
    assert told in output


def test_the_commit_is_found_by_measuring(repository, tmp_path, capsys):
    """Also where the working tree is the bad one, and a commit between does not import."""
    code, told = run(capsys, "same", ".", *CELL, "--metric", "returned", "--budget", "1")
    assert code == 3, told
    assert "returned regressed ×0.5: looking for 41.42% or more" in told
    *_, broken, worse = told.rstrip().splitlines()
    assert (broken.split()[1:], worse.split()[1:]) == (["broken"], ["worse"])
    assert repository.git("worktree", "list").count("\n") == 0
    assert len(list((tmp_path / "results").glob("bisect-*-baseline/cells/*.json"))) == 2
