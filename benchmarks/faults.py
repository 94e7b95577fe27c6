"""Random kill -9 of a run's processes: is anything lost, done twice, or different at the end?

    python benchmarks/faults.py [--kills 200] [--seed 0]

Each run has 80 cells and two processes that work on it, as a launcher would start them; workers,
fork servers and both processes are killed at random moments and started again until all is done.
Prints one markdown table.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from tabulate import tabulate

from tests.conftest import Trial
from tests.siege import VICTIMS, Tally, besiege


def main() -> None:
    """Kill and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="in all, as many of each kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder))
        try:
            tally = besiege(trial, options.kills // len(VICTIMS), options.seed, _tell)
        finally:
            trial.end()
    print(file=sys.stderr)
    rows = [*_rows(tally), ("seconds", f"{perf_counter() - start:.0f}")]
    print(tabulate(rows, headers=["", "count"], tablefmt="github"))


def _rows(tally: Tally) -> Iterator[tuple[str, object]]:
    for victim in VICTIMS:
        yield f"kill -9 of a {victim}", tally.kills[victim]
    yield "kills in all", tally.kills.total()
    yield "runs", tally.runs
    yield "cells", tally.cells
    yield "records lost or changed", tally.lost
    yield "cells run again after their record", tally.rerun
    yield "records that do not say they were killed", tally.unexplained
    yield "cells unlike an undisturbed run's after the resume", tally.different


def _tell(tally: Tally) -> None:
    print(f"\r{tally.kills.total()} kills, {tally.runs} runs", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
