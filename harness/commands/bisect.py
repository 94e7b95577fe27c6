"""Find the commit that made a cell worse, each tried one measured live against the good one.

  llmatrix bisect v1.0 HEAD suite=tokenization technique=tokenizers/bpe
  llmatrix bisect v1.0 . quick/0310d7715532fe60 --metric warm_mb_s

The cell is named by overrides that plan exactly one, or by a record (RUN/CELL_ID). First BAD is
measured against GOOD; the metric that got worst is then followed. A commit is bad if it has more
than half of that change, unless --margin says how much. The commits tried are those on the first
parents from GOOD to BAD ('.' is the working tree); one that does not run, or stays unresolved with
three times the budget, is passed over. Every trial leaves two ordinary runs in the results.

Exit codes: 0 found, 2 bad input (BAD is no worse too), 3 several commits are left, 4 BAD does not
run.
"""

import argparse
import math
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tabulate import tabulate

from harness.bisection import Answer, search
from harness.comparison import Comparison
from harness.environment import now
from harness.errors import UsageError, near
from harness.gate.sides import margin, seconds
from harness.repeat import find_record
from harness.revisions import Live, live
from harness.selfcheck import noise_here
from harness.verdict import Change, Rule
from harness.worktrees import ROOT, WORKING_TREE, checkouts, commit_of

_PATIENCE = 3  # times the budget, for a second try


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("good", help="revision that is known to be good")
    parser.add_argument("bad", help="later revision that is worse, or .")
    parser.add_argument("cell", nargs="+", help="overrides that plan one cell, or RUN/CELL_ID")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where runs are kept")
    parser.add_argument("--metric", help="which one to follow; else the one that got worst")
    parser.add_argument("--margin", type=margin, help="change that makes a commit bad")
    parser.add_argument("--budget", type=seconds, default=600.0, help="seconds a commit (600)")


def main(options: argparse.Namespace) -> int:
    """Search and print the commit with all that was tried."""
    commits = _commits(options.good, options.bad)
    overrides = _overrides(options.cell, options.good, options.results)
    moment = now()[:19].replace("-", "").replace(":", "")
    trial = _Trial(
        Live(
            baseline=options.good,
            candidate=options.bad,
            overrides=overrides,
            results=options.results,
            run=f"bisect-{moment}",
            budget_s=options.budget,
            root=ROOT,
            say=_say,
        )
    )
    change = _verified(trial, options.metric)
    trial.rule = replace(trial.rule, margin=options.margin or half_of(change))
    print(f"{trial.metric} {told(change)}: looking for {trial.rule.margin:.2%} or more\n")
    found = search(commits, trial.ask)
    _print(found, trial.steps)
    return 0 if len(found) == 1 else 3


@dataclass
class _Trial:
    """Measures commits against the good one and keeps what came of each."""

    request: Live
    metric: str = ""
    rule: Rule = field(default_factory=lambda: Rule(noise=noise_here()))
    steps: list[tuple[str, str, str]] = field(default_factory=list)  # commit, answer, why
    tries: int = 0

    def ask(self, commit: str) -> Answer:
        """Judge the commit by the metric that is followed."""
        _say(f"trying {_described(commit)}")
        answer, why = self.judged(commit)
        self.steps.append((commit, answer, why))
        return answer

    def judged(self, commit: str) -> tuple[Answer, str]:
        why = ""
        for patience in (1, _PATIENCE):
            try:
                comparison = self.compared(commit, patience=patience)
            except UsageError as error:  # it cannot be planned there
                return "skip", str(error)
            if reason := _broken(comparison):
                return "skip", reason
            changes = [r.change for r in comparison.rows if r.metric == self.metric]
            if not changes:
                return "skip", f"has no {self.metric}"
            why = told(changes[0])
            if changes[0].verdict != "unresolved":
                return ("bad" if changes[0].verdict == "regressed" else "good"), why
        return "skip", why

    def compared(self, commit: str, *, patience: float = 1, confirm: bool = False) -> Comparison:
        self.tries += 1
        return live(
            replace(
                self.request,
                candidate=commit,
                run=f"{self.request.run}-{self.tries}",
                rule=self.rule,
                budget_s=patience * self.request.budget_s,
                confirm=confirm,
            )
        )


def _verified(trial: _Trial, metric: str | None) -> Change:
    """How the metric that is to be followed got worse from good to bad; the trial then knows it.

    Raises:
        UsageError: if it did not, there is no such metric, or there are several cells.
        SystemExit: 4 if the bad revision does not run.
    """
    request = trial.request
    _say(f"measuring {request.candidate} against {request.baseline}")
    comparison = trial.compared(request.candidate, confirm=True)
    if reason := _broken(comparison):
        _say(f"{request.candidate}: {reason}; try `git bisect` with a command that fails there")
        sys.exit(4)
    rows = {row.metric: row.change for row in comparison.rows}
    if not rows:
        raise UsageError(f"the cell gives no figures at {request.baseline}")
    if metric and metric not in rows:
        raise UsageError(f"the cell has no metric {metric!r}{near(metric, rows)}")
    worse = {
        name: change
        for name, change in rows.items()
        if change.verdict == "regressed" and metric in (None, name)
    }
    if not worse:
        shown = [metric] if metric else list(rows)
        raise UsageError(
            f"{request.candidate} is not worse than {request.baseline}: "
            + "; ".join(f"{name} {told(rows[name])}" for name in shown)
        )
    trial.metric = max(worse, key=lambda name: half_of(worse[name]))
    return worse[trial.metric]


def half_of(change: Change) -> float:
    """The margin that tells a revision with the change from one without, at equal distance."""
    if change.effect == "ratio":
        return max(Rule().margin, math.expm1(abs(math.log(change.value)) / 2))
    size = abs(change.baseline) or 1.0
    return max(Rule().margin, abs(change.value) / 2 / size)


def told(change: Change) -> str:
    """Verdict and effect in a few words."""
    effect = f"×{change.value:.3g}" if change.effect == "ratio" else f"{change.value:+.3g}"
    interval = ""
    if change.low is not None and change.high is not None:
        interval = f" [{change.low:.3g}, {change.high:.3g}]"
    return f"{change.verdict} {effect}{interval}"


def _broken(comparison: Comparison) -> str:
    """Why the candidate's cell has no figures, or nothing."""
    failed = [record for _, record in comparison.broken]
    return f"its cell {failed[0].outcome}: {failed[0].reason}" if failed else ""


def _overrides(words: Sequence[str], good: str, results: Path) -> tuple[str, ...]:
    if len(words) == 1 and "=" not in words[0]:
        record, _ = find_record(results, words[0])
        return tuple(shlex.split(record.command)[2:])
    with checkouts(good, root=ROOT) as (side,):
        cells = side.plan(words)
    if len(cells) != 1:
        labels = "; ".join(cell.label for cell in cells[:3])
        raise UsageError(f"name one cell: these words plan {len(cells)} ({labels}, ...)")
    return tuple(words)


def _commits(good: str, bad: str) -> list[str]:
    """What came after the good one, oldest first, the bad one last.

    Raises:
        UsageError: if there is nothing between them.
    """
    tip = "HEAD" if bad == WORKING_TREE else bad
    start, end = commit_of(good, ROOT), commit_of(tip, ROOT)
    commits = _git("rev-list", "--first-parent", "--reverse", f"{start}..{end}").split()
    if bad == WORKING_TREE:
        commits.append(WORKING_TREE)
    if not commits or _git("merge-base", start, end) != start:
        raise UsageError(f"{bad} does not come after {good}: name the good revision first")
    return commits


def _described(commit: str) -> str:
    if commit == WORKING_TREE:
        return "the working tree"
    return _git("show", "--no-patch", "--format=%h %s", commit)


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _print(found: Sequence[str], steps: Sequence[tuple[str, str, str]]) -> None:
    rows = [(_described(commit), answer, why) for commit, answer, why in steps]
    if rows:
        print(tabulate(rows, headers=["commit", "", ""], tablefmt="github"))
        print()
    if len(found) == 1:
        print(f"first bad commit: {_described(found[0])}")
        if found[0] != WORKING_TREE and " " in _git("show", "-s", "--format=%P", found[0]):
            print("it is a merge: bisect the branch that it brought in")
        return
    print(f"one of these {len(found)} commits; those before the last could not be judged:")
    print("\n".join(f"  {_described(commit)}" for commit in found))
