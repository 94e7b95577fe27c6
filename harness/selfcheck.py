"""The gate measured with itself: how often it cries wolf on this machine, and what it finds.

A trial runs five equal yardsticks in turns (harness/yardstick.py): two alike, and three that do 2,
5 and 10 % more work. The gate's own rule judges each against the first. Of the two alike, any
change it reports is a false alarm. What comes out is kept for the machine, stands beside its runs,
and widens the gate's margin where the machine is noisier than that.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from harness import yardstick
from harness.artifacts import default_folder
from harness.cell import digest
from harness.cores import lease
from harness.environment import load, machine_class, now, usable_cores
from harness.generations import Course, run_generation
from harness.isolate import Place
from harness.record import Quantity
from harness.sequential import Looks, judge_at
from harness.server import ForkServer
from harness.store import write_atomically
from harness.verdict import Change, Rule

SLOWDOWNS = (0.0, 0.02, 0.05, 0.10)  # the first is the same work again
FILE = "selfcheck.json"  # beside a run's records
_FOUND = 0.95  # share of trials in which a slowdown must be found to count as found
_NOISE = 0.99  # quantile of the A/A changes that the margin must cover


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """How much a trial measures."""

    rounds: int = 20  # of each generation
    looks: Looks = field(default_factory=Looks)
    rule: Rule = field(default_factory=Rule)
    parts: int = yardstick.PARTS


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """Quantities of the reference and of each slowdown, and how the gate judged them."""

    reference: Quantity
    others: Mapping[float, Quantity]
    changes: Mapping[float, Change]
    rounds: Mapping[float, int]  # taken until the gate was sure


@dataclass(frozen=True, kw_only=True, slots=True)
class Selfcheck:
    """What is kept of all trials."""

    trials: int
    false_alarms: int
    found: dict[str, float]  # slowdown -> share of trials in which it was found
    rounds: dict[str, float]  # slowdown -> mean rounds until the gate was sure
    rounds_at_most: int
    smallest_found: float | None  # the least slowdown found in 95 % of trials
    noise: float  # change between equal works that 99 % of trials stay below
    moment: str
    load: list[float]
    machine_class: str


def run_trials(
    count: int, protocol: Protocol, *, server: ForkServer, folder: Path
) -> Iterator[Trial]:
    """Trials one after another; scratch files go into `folder`."""
    place = Place(server=server, cores=usable_cores())
    for number in range(count):
        with lease(place.cores, alone=True):
            trial = _trial(protocol, place, folder, seed=number)
        yield trial  # without the cores: who takes it may want them


def _trial(protocol: Protocol, place: Place, folder: Path, *, seed: int) -> Trial:
    parts = [protocol.parts, *(round(protocol.parts * (1 + s)) for s in SLOWDOWNS)]
    cells = [
        yardstick.cell(parts=n, rounds=protocol.rounds, name=str(index))
        for index, n in enumerate(parts)
    ]
    courses = [Course(cell, folder / cell.cell_id, place) for cell in cells]
    generations = protocol.looks.generations
    for generation in range(generations):
        run_generation(courses, generations=1, seed=seed * generations + generation)
    reference, *others = (_quantity(course) for course in courses)
    return judged(reference, dict(zip(SLOWDOWNS, others, strict=True)), protocol)


def judged(reference: Quantity, others: Mapping[float, Quantity], protocol: Protocol) -> Trial:
    """The trial that these times make."""
    settled = {s: _settled(reference, other, protocol) for s, other in others.items()}
    return Trial(
        reference=reference,
        others=others,
        changes={s: change for s, (change, _) in settled.items()},
        rounds={s: generations * protocol.rounds for s, (_, generations) in settled.items()},
    )


def _quantity(course: Course) -> Quantity:
    """The yardstick's times.

    Raises:
        RuntimeError: if one of its processes did not end well.
    """
    ending = course.measured("").ending
    if ending.outcome != "ok":
        raise RuntimeError(f"a yardstick ended as {ending.outcome}: {ending.reason}")
    (metric,) = yardstick.SUITE.metrics
    samples = ending.metrics[metric.name]
    return Quantity(
        value=float(np.median(samples)),
        unit=metric.unit,
        better=metric.better,
        kind=metric.kind,
        samples=samples,
        generations=ending.generations[metric.name],
    )


def _settled(baseline: Quantity, candidate: Quantity, protocol: Protocol) -> tuple[Change, int]:
    """The verdict at the first look that has one, and the generations that were needed for it."""
    looks = protocol.looks
    for generations in range(1, looks.generations + 1):
        if looks.due(generations):
            sides = (_first(baseline, generations), _first(candidate, generations))
            change = judge_at(*sides, looks.after(generations), looks, protocol.rule)
            if change.verdict != "unresolved":
                break
    return change, generations


def _first(quantity: Quantity, generations: int) -> Quantity:
    """What was known after so many generations."""
    sizes = quantity.generations[:generations]
    return replace(quantity, samples=quantity.samples[: sum(sizes)], generations=sizes)


def summary(trials: Sequence[Trial], protocol: Protocol) -> Selfcheck:
    """What the trials say of the gate on this machine."""
    found = {
        str(s): float(np.mean([trial.changes[s].verdict == "regressed" for trial in trials]))
        for s in SLOWDOWNS[1:]
    }
    same = [trial.changes[0.0] for trial in trials]
    changes = [abs(math.log(change.value)) for change in same]
    return Selfcheck(
        trials=len(trials),
        false_alarms=sum(change.verdict in ("regressed", "improved") for change in same),
        found=found,
        rounds={str(s): float(np.mean([t.rounds[s] for t in trials])) for s in SLOWDOWNS},
        rounds_at_most=protocol.rounds * protocol.looks.generations,
        smallest_found=_smallest(found),
        noise=math.expm1(float(np.quantile(changes, _NOISE))),
        moment=now(),
        load=load(),
        machine_class=machine_class(),
    )


def _smallest(found: Mapping[str, float]) -> float | None:
    """The slowdown from which on all are found."""
    smallest = None
    for slowdown in sorted(found, key=float, reverse=True):
        if found[slowdown] < _FOUND:
            break
        smallest = float(slowdown)
    return smallest


def keep(check: Selfcheck) -> Path:
    """Store it as this machine's own; the file."""
    path = _place(check.machine_class)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(check, path)
    return path


def write(check: Selfcheck, path: Path) -> None:
    """Store it in a file that `read` reads."""
    write_atomically(path, json.dumps(asdict(check), indent=1).encode())


def kept(machine: str | None = None) -> Selfcheck | None:
    """The newest one of this class of machine, if there is any."""
    return read(_place(machine or machine_class()))


def read(path: Path) -> Selfcheck | None:
    """A stored one; None where there is none that can be read."""
    try:
        return Selfcheck(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def noise_here() -> float:
    """By how much times of equal work differ on this machine; 0 where it has no self-check."""
    check = kept()
    return check.noise if check else 0.0


def _place(machine: str) -> Path:
    return default_folder() / "selfcheck" / f"{digest(machine)}.json"
