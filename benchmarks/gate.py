"""How trustworthy the gate is on this machine, beside the usual rule, on the same trials.

    python benchmarks/gate.py [--trials 300] [--load 4] [--minutes 60] [--out FILE]
    python benchmarks/gate.py --trials 0 --add FILE FILE

Every trial measures equal work, and work that is 2, 5 and 10 % longer, twice: in turns, as the gate
does, and one after another, each in a process of its own, as pytest-benchmark does (whose rule
`mean:5%` calls a mean that is 5 % above the baseline's a failure). Both take the same number of
samples. `--load` keeps so many other processes busy meanwhile. Prints one markdown table; `--out`
keeps all samples.
"""

import argparse
import contextlib
import json
import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from time import monotonic

import numpy as np
from rich.progress import track
from scipy.stats import binomtest
from tabulate import tabulate

from harness import yardstick
from harness.cores import lease
from harness.environment import load, machine_class, usable_cores
from harness.generations import Course, run_generation
from harness.isolate import Place
from harness.record import Quantity
from harness.selfcheck import SLOWDOWNS, Protocol, Trial, judged, run_trials
from harness.server import ForkServer

USUAL_LIMIT = 1.05


@dataclass(frozen=True)
class Both:
    """One trial by both protocols."""

    turns: Trial
    blocks: list[list[float]]  # samples of the reference and of each slowdown
    load: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--load", type=int, default=0, help="busy processes beside the trials")
    parser.add_argument("--minutes", type=float, default=1e9, help="no trial begins later")
    parser.add_argument("--add", type=Path, nargs="*", default=[], help="files of --out to join in")
    parser.add_argument("--out", type=Path, help="where all samples go, as JSON")
    options = parser.parse_args()
    protocol = Protocol()
    with tempfile.TemporaryDirectory() as folder, busy(options.load):
        ends = monotonic() + 60 * options.minutes
        going = takewhile(lambda _: monotonic() < ends, range(options.trials))
        measuring = measured(options.trials, protocol, Path(folder))
        trials = [trial for _, trial in zip(going, measuring, strict=False)]
    trials += [trial for path in options.add for trial in stored(path, protocol)]
    loads = [trial.load for trial in trials]
    print(f"{machine_class()}; load {min(loads):.1f} to {max(loads):.1f}, {len(trials)} trials\n")
    print(tabulate(rows(trials, protocol), headers="firstrow", tablefmt="github"))
    if options.out:
        options.out.write_text(json.dumps([as_json(trial) for trial in trials]))


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that do nothing but compute, on any core, until the block ends."""
    spinners = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(count)]
    for spinner in spinners:
        spinner.start()
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.join()


def _spin() -> None:
    values = np.linspace(1.0, 2.0, 1_000_000)
    while True:
        values = np.sqrt(values) + 0.5


def measured(count: int, protocol: Protocol, folder: Path) -> Iterator[Both]:
    """Trials by both protocols."""
    server = ForkServer(threads=len(usable_cores()))
    place = Place(server=server, cores=usable_cores())
    try:
        trials = run_trials(count, protocol, server=server, folder=folder)
        for trial in track(trials, total=count):
            yield Both(trial, _blocks(protocol, place, folder), load()[0])
    finally:
        server.close()


def _blocks(protocol: Protocol, place: Place, folder: Path) -> list[list[float]]:
    """Each piece of work alone, one after another, with as many samples as in turns."""
    rounds = protocol.rounds * protocol.looks.generations
    samples = []
    with lease(place.cores, alone=True):
        for slowdown in (0.0, *SLOWDOWNS):
            cell = yardstick.cell(parts=round(protocol.parts * (1 + slowdown)), rounds=rounds)
            course = Course(cell, folder / "block", place)
            run_generation([course], generations=1, seed=0)
            samples.append(course.measured("").ending.metrics["call_ms"])
    return samples


def rows(trials: Sequence[Both], protocol: Protocol) -> Iterator[list[str]]:
    """The table, a line a slowdown."""
    yield [
        "", "in turns: gate", "95 %", "rounds of the gate", "in turns: mean:5%",
        "blocks: mean:5%", "sd of the ratio, in turns", "sd, blocks, median",
    ]  # fmt: skip
    for index, slowdown in enumerate(SLOWDOWNS):
        verdicts = [trial.turns.changes[slowdown].verdict for trial in trials]
        alarms = ("regressed", "improved") if slowdown == 0 else ("regressed",)
        hits = sum(verdict in alarms for verdict in verdicts)
        interval = binomtest(hits, len(trials)).proportion_ci()
        rounds = np.mean([trial.turns.rounds[slowdown] for trial in trials])
        turned = [
            (trial.turns.reference.samples, trial.turns.others[slowdown].samples)
            for trial in trials
        ]
        apart = [(trial.blocks[0], trial.blocks[1 + index]) for trial in trials]
        ratios = [trial.turns.changes[slowdown].value for trial in trials]
        medians = [np.median(other) / np.median(reference) for reference, other in apart]
        yield [
            "equal work: false alarms" if slowdown == 0 else f"+{slowdown:.0%}: found",
            f"{hits / len(trials):.1%}",
            f"[{interval.low:.1%}, {interval.high:.1%}]",
            f"{rounds:.1f} of {protocol.rounds * protocol.looks.generations}",
            f"{_usual(turned, either=slowdown == 0):.1%}",
            f"{_usual(apart, either=slowdown == 0):.1%}",
            f"{np.std(np.log(ratios)):.2%}",
            f"{np.std(np.log(medians)):.2%}",
        ]


def _usual(pairs: Sequence[tuple[Sequence[float], Sequence[float]]], *, either: bool) -> float:
    """Share of pairs that the rule `mean:5%` fails; with `either`, in either direction."""
    ratios = np.array([np.mean(other) / np.mean(reference) for reference, other in pairs])
    failed = ratios > USUAL_LIMIT
    return float(np.mean(failed | (1 / ratios > USUAL_LIMIT) if either else failed))


def as_json(trial: Both) -> dict[str, object]:
    """All samples of a trial; `stored` reads them."""
    return {
        "reference": asdict(trial.turns.reference),
        "others": {str(s): asdict(quantity) for s, quantity in trial.turns.others.items()},
        "blocks": trial.blocks,
        "load": trial.load,
    }


def stored(path: Path, protocol: Protocol) -> Iterator[Both]:
    """The trials of a file, judged anew."""
    for trial in json.loads(path.read_bytes()):
        others = {float(s): Quantity(**quantity) for s, quantity in trial["others"].items()}
        turns = judged(Quantity(**trial["reference"]), others, protocol)
        yield Both(turns, trial["blocks"], trial["load"])


if __name__ == "__main__":
    main()
