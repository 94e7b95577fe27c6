"""The gate: may the candidate replace the baseline?

  llmatrix check main-run pull-request-run               two stored runs, names or folders
  llmatrix check --git origin/main . experiment=quick    two revisions, measured in turns;
                                                         a change is measured twice before it fails

Exit codes: 0 fine; 1 a metric regressed or a cell broke; 2 bad usage; 3 unresolved, with
--fail-on regressed,unresolved; 4 nothing could be compared.
"""

import argparse
from pathlib import Path

from harness.gate.ending import ending, verdicts_to_fail_on
from harness.gate.github import annotations, append_summary
from harness.gate.junit import write_junit
from harness.gate.sides import add_sides, judged
from harness.gate.told import markdown, report
from harness.gate.writing import writing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    add_sides(parser)
    parser.add_argument(
        "--fail-on",
        type=verdicts_to_fail_on,
        default="regressed",
        metavar="VERDICTS",
        help="regressed, unresolved, or both between commas (regressed)",
    )
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a table for a comment")
    parser.add_argument(
        "--github", action="store_true", help="print annotations and append to the step's summary"
    )


def main(options: argparse.Namespace) -> int:
    """Print the verdicts and how the gate ends."""
    found = judged(options, confirm=True)
    ended = ending(found.comparison, options.fail_on)
    print(report(found))
    if options.junit:
        write_junit(found, ended, options.fail_on, options.junit)
    if options.markdown:
        with writing(options.markdown):
            options.markdown.write_text(markdown(found), encoding="utf-8")
    if options.github:
        print("\n".join(annotations(found, ended, options.fail_on)))
        append_summary(found)
    print(f"\n{'failed' if ended.code else 'passed'}: {ended.reason}")
    return ended.code
