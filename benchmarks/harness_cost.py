"""What the harness itself costs: front door, planning 10,000 cells, a warm isolated cell.

    python benchmarks/harness_cost.py [--cells 200] [--repeats 9]

Prints one markdown table; every figure is the median with its 95 % interval.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter

from tabulate import tabulate

from harness.cell import Cell
from harness.configure import compose
from harness.plan import make_plan
from harness.run import prepare
from harness.shard import Shard
from harness.statistics import summarise
from harness.store import Store

PLUGIN = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "plugin"
PLANNED = [
    "suite=tokenization",
    "technique=tokenizers/byte_bpe,tokenizers/bpe,tokenizers/unigram,tokenizers/wordpiece",
    "vocab_size=range(5000,5050)",
    "seed=range(50)",
]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=200, help="trivial cells to run")
    parser.add_argument("--repeats", type=int, default=9, help="of everything else")
    options = parser.parse_args()
    rows = list(_rows(options.cells, options.repeats))
    told = [(what, f"{v:.3g}", f"[{lo:.3g}, {hi:.3g}]", unit) for what, (v, lo, hi), unit in rows]
    print(tabulate(told, headers=["", "median", "95 %", ""], tablefmt="github"))


def _rows(cells: int, repeats: int) -> Iterator[tuple[str, tuple[float, ...], str]]:
    for words in (["--help"], ["list", "techniques"], ["show", "tokenizers/byte_bpe"]):
        command = [sys.executable, "-m", "harness", *words]
        seconds = _time(lambda command=command: _quietly(command), repeats)
        yield f"llmatrix {' '.join(words)}", summarise(seconds), "s"
    request = compose(PLANNED).request
    assert request is not None
    count = len(make_plan(request).cells)
    yield f"plan of {count:,} cells", summarise(_time(lambda: make_plan(request), repeats)), "s"
    overheads, total = _warm_cells(cells)
    yield "overhead of a warm cell", summarise([1000 * s for s in overheads]), "ms"
    each = 1000 * total / cells
    yield f"{cells} trivial cells end to end, each", (each, each, each), "ms"


def _warm_cells(count: int) -> tuple[list[float], float]:
    """Wall time less time inside `measure` of each cell, and seconds for all, records included."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["suite=trial", "technique=trial/behave", f"n=range({count})", "run=cost"]
        asked = compose([*words, f"results={folder}", f"reports={folder}/reports"])
        prepare(asked)
        assert asked.request is not None
        cells: Sequence[Cell] = make_plan(asked.request).cells
        store = Store(Path(folder) / "cost")
        start = perf_counter()
        Shard(store=store, cells=cells).run(lambda _event: None)
        total = perf_counter() - start
        records, _ = store.records()
    warm = sorted(records, key=lambda record: record.started)[1:]  # the first starts the server
    return [record.wall_s - (record.measured_s or 0.0) for record in warm], total


def _time(work: Callable[[], object], repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        work()
        seconds.append(perf_counter() - start)
    return seconds


def _quietly(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    if str(PLUGIN) not in os.environ.get("PYTHONPATH", ""):  # cells need it on their path too
        environment = {**os.environ, "PYTHONPATH": str(PLUGIN)}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    main()
