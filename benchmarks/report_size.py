"""What a report costs: seconds to write it and bytes of its page, up to 10,000 cells.

    python benchmarks/report_size.py [--repeats 3]

Prints one markdown table; each report is written from records in memory.
"""

import argparse
import tempfile
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path
from time import perf_counter

import numpy as np
from tabulate import tabulate

from harness.card import Metric, Suite
from harness.cell import digest
from harness.record import Quantity, Record
from harness.report import write_report
from harness.statistics import summarise

SIZES = (
    (1_000, 1, 100),
    (1_000, 4, 25),
    (1_700, 4, 60),
    (10_000, 4, 60),
)  # cells, metrics, samples
SUITE = Suite(
    title="Speed",
    question="Which is fastest?",
    families=("toys",),
    baseline="toys/t0",
    metrics=tuple(
        Metric(name=f"seconds_{i}", unit="s", better="lower", kind="timing") for i in range(4)
    ),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    rows = []
    for cells, metrics, samples in SIZES:
        seconds, size = _measure(list(islice(_records(metrics, samples), cells)), repeats)
        rows.append(
            (f"{cells:,}", f"{cells * metrics * samples:,}", f"{seconds:.2f}", f"{size:.2f}")
        )
    headers = ["cells", "samples", "seconds, fastest", "MB of the page"]
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))


def _measure(records: list[Record], repeats: int) -> tuple[float, float]:
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            start = perf_counter()
            write_report(records, {"speed": SUITE}, {}, Path(folder), title="Speed", run="speed")
            seconds.append(perf_counter() - start)
        size = (Path(folder) / "index.html").stat().st_size
    return min(seconds), size / 1e6


def _records(n_metrics: int, n_samples: int) -> Iterator[Record]:
    """Fifty techniques in endless settings, each cell with a log and conditions as a relay's."""
    rng = np.random.default_rng(0)
    for length, place in product(range(1, 1_000), range(50)):
        technique, setting = f"toys/t{place}", {"length": 128 * length}
        metrics = {
            f"seconds_{i}": _quantity(1e-3 * (1 + place / 50) * length, n_samples, rng)
            for i in range(n_metrics)
        }
        yield Record(
            cell_id=digest([technique, setting]), run="speed", suite="speed", technique=technique,
            options={"width": 64}, setting=setting, code="c", world=1, device="cpu",
            command=f"llmatrix run suite=speed technique={technique} length={128 * length}",
            outcome="ok", metrics=metrics, started="2026-01-01T00:00:00Z", wall_s=1.0,
            log_tail="a line of its log\n" * 20, load_before=[1.0, 1.0, 1.0],
            environment={"machine": "m", "cores": 2, "versions": {"torch": "2"}},
            conditions={"load1": rng.uniform(0, 4, 60).tolist(), "steal": [0.0] * 60},
        )  # fmt: skip


def _quantity(centre: float, n: int, rng: np.random.Generator) -> Quantity:
    samples = (centre * rng.lognormal(0, 0.05, n)).tolist()
    value, low, high = summarise(samples)
    half = n // 2
    return Quantity(
        value=value, low=low, high=high, samples=samples, unit="s", better="lower", kind="timing",
        generations=[half, n - half],
    )  # fmt: skip


if __name__ == "__main__":
    main()
