"""Write the tables, plots and page of a run from its records."""

import argparse
from pathlib import Path

from harness.run import must_exist, report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("run", help="name of the run, a folder of results/")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where runs are kept")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="where reports go")


def main(options: argparse.Namespace) -> int:
    """Write the report; 0 whatever the records say."""
    report(must_exist(options.results, options.run), options.out)
    print(options.out / options.run / "index.html")
    return 0
