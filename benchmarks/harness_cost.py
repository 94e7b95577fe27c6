"""What the harness itself costs: front door, planning 10,000 cells, a warm isolated cell.

    python benchmarks/harness_cost.py [--cells 1000] [--repeats 9] [--bursts 30]

Prints one markdown table; every figure is the median with its 95 % interval. The last is how much
longer a piece of work on all cores takes inside a cell (forked, watched, in turns) than in a bare
process: bursts of both by chance first or second, the ratio as `llmatrix check` judges it.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import numpy as np
from tabulate import tabulate

from harness import yardstick
from harness.cell import Cell
from harness.configure import compose
from harness.cores import lease
from harness.environment import usable_cores
from harness.generations import Course, measure_together
from harness.isolate import Place
from harness.plan import make_plan
from harness.record import Quantity
from harness.run import prepare
from harness.server import ForkServer
from harness.shard import Shard
from harness.statistics import summarise
from harness.store import Store
from harness.verdict import Rule, judge

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
    parser.add_argument("--cells", type=int, default=1000, help="trivial cells to run")
    parser.add_argument("--bursts", type=int, default=30, help="of work inside and outside a cell")
    parser.add_argument("--repeats", type=int, default=9, help="of everything else")
    options = parser.parse_args()
    rows = [*_rows(options.cells, options.repeats), _perturbation(options.bursts)]
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
    yield f"{cells:,} trivial isolated cells with their records", (total, total, total), "s"


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


BARE = """
import json, sys
from harness import yardstick
from harness.instruments.clock import Clock
json.dump(yardstick.measure(json.loads(sys.argv[1]), Clock())["call_ms"], sys.stdout)
"""


def _perturbation(bursts: int) -> tuple[str, tuple[float, ...], str]:
    """Time of work on all cores inside a cell over that in a bare process."""
    cell = yardstick.cell(parts=10, rounds=40, kind="matmul")
    server = ForkServer(threads=len(usable_cores()))
    place = Place(server=server, cores=usable_cores())
    inside, outside, shares = list[float](), list[float](), list[float]()
    with tempfile.TemporaryDirectory() as folder, lease(place.cores, alone=True):
        server.start()
        for burst in range(bursts):
            for is_inside in random.Random(burst).sample((True, False), 2):
                if not is_inside:
                    outside += _bare(cell)
                    continue
                (measured,) = measure_together(
                    [Course(cell, Path(folder) / "cell", place)], generations=1
                )
                assert measured is not None
                inside += measured.ending.metrics["call_ms"]
                shares.append(measured.harness_cpu_share or 0.0)
    server.close()
    sides = (_quantity(samples, bursts) for samples in (outside, inside))
    change = judge(*sides, Rule(), paired=True)
    assert change.low is not None
    assert change.high is not None
    what = f"work on {len(place.cores)} cores inside a cell over bare ({change.verdict}; "
    what += f"the parent used {np.median(shares):.2%} of a core)"
    return what, (change.value, change.low, change.high), ""


def _bare(cell: Cell) -> list[float]:
    threads = str(len(usable_cores()))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    done = subprocess.run(
        [sys.executable, "-c", BARE, json.dumps(asdict(cell))],
        env={**os.environ, **dict.fromkeys(names, threads)},
        capture_output=True,
        check=True,
    )
    samples: list[float] = json.loads(done.stdout)
    return samples


def _quantity(samples: list[float], bursts: int) -> Quantity:
    return Quantity(
        value=float(np.median(samples)),
        unit="ms",
        better="lower",
        kind="timing",
        samples=samples,
        generations=[len(samples) // bursts] * bursts,
    )


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
