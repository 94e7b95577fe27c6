"""Which two things are compared: stored runs, or two revisions measured side by side."""

import argparse
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from harness.comparison import Comparison, compare
from harness.environment import now
from harness.errors import UsageError
from harness.record import Record
from harness.report.trust import selfcheck_of
from harness.revisions import Live, live
from harness.selfcheck import noise_here
from harness.store import Store, open_run
from harness.verdict import Rule


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A comparison and how it came about."""

    comparison: Comparison
    live: bool  # both sides measured anew, in turns
    confirmed: bool  # every change was measured once more


def add_sides(parser: argparse.ArgumentParser) -> None:
    """What `compare` and `check` have in common."""
    parser.add_argument("baseline", help="a run (name or folder); with --git a revision")
    parser.add_argument("candidate", help="a run (name or folder); with --git a revision, or .")
    parser.add_argument(  # with a default, so that argparse does not call it required
        "overrides", nargs="*", default=[], metavar="KEY=VALUE", help="with --git: the cells"
    )
    parser.add_argument(
        "--git", action="store_true", help="measure two revisions of this repository side by side"
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="where runs are kept")
    parser.add_argument(
        "--margin",
        type=margin,
        default=Rule().margin,
        help="change that does not matter (0.01); of times never below this machine's noise, "
        "as selfcheck found it",
    )
    parser.add_argument(
        "--budget", type=seconds, default=600.0, help="with --git: seconds at most (600)"
    )
    parser.add_argument("--run", help="with --git: name of the two runs that it leaves")


def margin(text: str) -> float:
    """A relative change, between 0 and 1.

    Raises:
        argparse.ArgumentTypeError: for anything else.
    """
    value = _number(text)
    if value is None or not 0 < value < 1:
        raise argparse.ArgumentTypeError(
            f"must be between 0 and 1 (0.01 is one per cent), got {text!r}"
        )
    return value


def seconds(text: str) -> float:
    """A time above 0.

    Raises:
        argparse.ArgumentTypeError: for anything else.
    """
    value = _number(text)
    if value is None or not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text!r}")
    return value


def judged(options: argparse.Namespace, *, confirm: bool) -> Judged:
    """The comparison that the command line asks for.

    Raises:
        UsageError: for runs or revisions that are not there, or words that do not go together.
    """
    if options.git:
        if not options.overrides:
            raise UsageError(
                "--git needs the cells to measure: "
                f"--git {options.baseline} {options.candidate} experiment=quick"
            )
        request = Live(
            baseline=options.baseline,
            candidate=options.candidate,
            overrides=tuple(options.overrides),
            results=options.results,
            run=options.run or _run_name(options.baseline, options.candidate),
            confirm=confirm,
            rule=Rule(margin=options.margin, noise=noise_here()),
            budget_s=options.budget,
            say=_say,
        )
        return Judged(comparison=live(request), live=True, confirmed=confirm)
    if options.overrides:
        raise UsageError(
            f"{options.overrides[0]!r} is too much: stored runs are compared whole; "
            "overrides go with --git REVISION REVISION"
        )
    return Judged(comparison=_stored(options), live=False, confirmed=False)


def find_run(results: Path, text: str) -> Store:
    """The run of this name in `results`, or at this path.

    Raises:
        UsageError: if there is none, with near misses.
    """
    path = Path(text)
    if (path / "plan.json").exists() and not (results / text / "plan.json").exists():
        return Store(path.resolve())
    return open_run(results, text)


def _stored(options: argparse.Namespace) -> Comparison:
    sides, unreadable, noise = [], [], [0.0]
    for text in (options.baseline, options.candidate):
        store = find_run(options.results, text)
        good, bad = store.records()
        unreadable += [f"{path} is no record and was left out: {bad[path]}" for path in bad]
        sides.append([_named(record, text) for record in good])
        if (check := selfcheck_of(store.folder, good)) is not None:
            noise.append(check.noise)
    baseline, candidate = sides
    comparison = compare(baseline, candidate, Rule(margin=options.margin, noise=max(noise)))
    return replace(
        comparison,
        baseline=options.baseline,
        candidate=options.candidate,
        warnings=(*unreadable, *comparison.warnings),
    )


def _named(record: Record, run: str) -> Record:
    """The record under the name that the user gave its run: a copied folder keeps the old one."""
    return replace(record, run=run)


def _run_name(baseline: str, candidate: str) -> str:
    """Says what was compared and when, so that no earlier comparison is taken up again."""
    words = "-".join(
        re.sub(r"[^A-Za-z0-9_.]+", "-", "tree" if side == "." else side).strip("-.")
        for side in (baseline, candidate)
    )
    return f"check-{words}-{re.sub('[^0-9T]', '', now())[:15]}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
