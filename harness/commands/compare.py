"""Two runs side by side: what regressed, what improved, what cannot be told.

  llmatrix compare RUN_A RUN_B                           two stored runs, names or folders
  llmatrix compare --git REV_A REV_B experiment=quick    two revisions, measured in turns
  llmatrix compare --git HEAD . suite=tokenization 'technique=tokenizers/*'

It judges and never fails: `llmatrix check` is the gate.
"""

import argparse
from pathlib import Path

from harness.gate.sides import add_sides, judged
from harness.gate.told import report
from harness.gate.writing import writing
from harness.report.compared import write_comparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    add_sides(parser)
    parser.add_argument("--all", action="store_true", help="rows that are equivalent too")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page as well")


def main(options: argparse.Namespace) -> int:
    """Print the verdicts; 0 whatever they are."""
    found = judged(options, confirm=False)
    print(report(found, every=options.all))
    if options.html:
        with writing(options.html):
            write_comparison(found.comparison, options.html)
        print(f"\n{options.html}")
    return 0
