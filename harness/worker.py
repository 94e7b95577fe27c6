"""Inside a cell's process: build the technique, measure it, write one result file.

The result is `{"outcome": "ok" | "failed" | "oom", "reason": ..., "metrics": {name: number, samples
or null}, "notes": {...}, "measured_s": ...}` in `result-RANK.json`. A process that dies before it
writes leaves no file; the parent then knows from its exit status.
"""

import contextlib
import faulthandler
import importlib
import json
import math
import os
import random
import resource
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from harness import catalogue, floors, yardstick
from harness.artifacts import Artifacts, default_folder
from harness.card import Suite
from harness.instruments import Instruments, device
from harness.instruments.clock import Clock
from harness.instruments.conditions import Conditions
from harness.instruments.turns import Turns
from harness.plan import build

_REASON_CHARACTERS = 500


def warm(suites: Sequence[str] = (), techniques: Sequence[str] = ()) -> None:
    """Do once, before cells are forked, what each of them would do again: imports and schemas.

    What cannot be imported is left to the cell that needs it, which will say what is wrong.
    """
    for name in suites:
        with contextlib.suppress(Exception):
            catalogue.suite(name)
            build(catalogue.load_suite(name).Setting, {})
    for name in techniques:
        with contextlib.suppress(Exception):
            build(catalogue.load(name), {})
    _seed(0)


def main(scratch: Path, rank: int) -> int:
    """Run the cell described in `scratch/cell.json`; 0 if it measured, 1 if it failed."""
    faulthandler.enable()
    cell = json.loads((scratch / "cell.json").read_text())
    try:
        _share_cores(cell["world"])
        if cell["world"] > 1:
            _join_world(scratch, rank, cell)
        result, code = _encoded(_measure(cell, rank)), 0
    except Exception as error:  # noqa: BLE001 - whatever a technique raises becomes a row
        _lift_memory_limit()
        result, code = _encoded(_failure(error)), 1
    except SystemExit as error:
        reason = f"the cell called sys.exit({error.code!r})"
        result, code = _encoded({"outcome": "failed", "reason": _short(reason)}), 1
    partial = scratch / f"result-{rank}.part"
    partial.write_bytes(result)
    partial.rename(scratch / f"result-{rank}.json")
    return code


def _encoded(result: dict[str, Any]) -> bytes:
    """UTF-8 JSON.

    Raises:
        TypeError: if a note is no JSON.
        ValueError: if a note holds a number that is not finite or text that is not Unicode.
    """
    return json.dumps(result, allow_nan=False, ensure_ascii=False).encode()


def _measure(cell: dict[str, Any], rank: int) -> dict[str, Any]:
    _seed(int(cell["setting"].get("seed", 0)))
    turns = Turns(**cell["turns"], rank=rank, world=cell["world"])
    clock = _clock(cell["device"], turns)
    instruments = Instruments(
        artifacts=Artifacts(default_folder()),
        technique=cell["technique"],
        rank=rank,
        world=cell["world"],
        timing=clock,
    )
    work = _yardstick if cell["suite"] == yardstick.NAME else _technique
    seconds, metrics = work(cell, instruments)
    return {
        "outcome": "ok",
        "reason": "",
        "metrics": metrics,
        "notes": {**instruments.notes, **device.notes(clock.timer)},
        "needs": {name: asdict(needs) for name, needs in instruments.needed.items()},
        "conditions": clock.conditions.values,
        "measured_s": seconds - turns.waited_s,
    }


def _clock(name: str, turns: Turns) -> Clock:
    """By device events on a GPU; a cell that asks for one that is not there will say so itself."""
    if name == "cuda" and importlib.import_module("torch").cuda.is_available():
        conditions = Conditions(device.gpu())
        return Clock(turns=turns, timer=device.timer_for(name), conditions=conditions)
    return Clock(turns=turns)


def _technique(cell: dict[str, Any], instruments: Instruments) -> tuple[float, dict[str, Any]]:
    technique = build(catalogue.load(cell["technique"]), cell["options"])
    suite = catalogue.load_suite(cell["suite"])
    setting = build(suite.Setting, cell["setting"])
    start = perf_counter()
    measured = suite.measure(technique, setting, instruments)
    seconds = perf_counter() - start
    floors.check(instruments.needed, catalogue.suite(cell["suite"]))
    return seconds, _checked(measured, catalogue.suite(cell["suite"]))


def _yardstick(cell: dict[str, Any], instruments: Instruments) -> tuple[float, dict[str, Any]]:
    start = perf_counter()
    measured = yardstick.measure(cell, instruments.timing)
    return perf_counter() - start, _checked(measured, yardstick.SUITE)


def _checked(measured: Mapping[str, Any], suite: Suite) -> dict[str, Any]:
    """Plain finite numbers for exactly the declared metrics.

    Raises:
        ValueError: naming the metric that is missing, undeclared or not finite.
    """
    declared = {metric.name for metric in suite.metrics}
    if wrong := declared.symmetric_difference(measured):
        raise ValueError(f"metrics declared and returned differ in: {', '.join(sorted(wrong))}")
    return {name: _plain(name, value) for name, value in measured.items()}


def _plain(name: str, value: Any) -> float | list[float] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple | np.ndarray):
        return _finite(name, float(value))
    if not len(value):
        raise ValueError(f"metric {name} has no samples; return None where it does not apply")
    return [_finite(name, float(sample)) for sample in value]


def _finite(name: str, number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(f"metric {name} is {number}, not a finite number")
    return number


def _failure(error: Exception) -> dict[str, Any]:
    traceback.print_exception(error)
    outcome = "oom" if _is_out_of_memory(error) else "failed"
    return {"outcome": outcome, "reason": _short(f"{type(error).__name__}: {_message(error)}")}


def _message(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0]


def _short(reason: str) -> str:
    """What fits a row, as text that is Unicode for certain."""
    return reason[:_REASON_CHARACTERS].encode(errors="backslashreplace").decode()


def _lift_memory_limit() -> None:
    """The little that saying what went wrong takes must not fail too."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _is_out_of_memory(error: Exception) -> bool:
    """Torch and Arrow have out-of-memory errors of their own, told apart only by name or text."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return True
    return isinstance(error, RuntimeError | OSError) and any(
        sign in text for sign in ("can't allocate memory", "cannot allocate memory")
    )


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if "torch" in sys.modules:
        importlib.import_module("torch").manual_seed(seed)


def _share_cores(world: int) -> None:
    """One thread a core of this rank's share of this machine."""
    world = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = max(1, (cores or 1) // world)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        importlib.import_module("torch").set_num_threads(threads)


def _join_world(scratch: Path, rank: int, cell: dict[str, Any]) -> None:
    """Rendezvous through a file, so that no port is ever taken by another run.

    Ranks under torch's elastic launcher (harness/elastic.py) meet where it says.
    """
    distributed = importlib.import_module("torch.distributed")
    elastic = "TORCHELASTIC_RUN_ID" in os.environ
    if cell["device"] == "cuda":
        importlib.import_module("torch.cuda").set_device(int(os.environ.get("LOCAL_RANK", rank)))
    distributed.init_process_group(
        "nccl" if cell["device"] == "cuda" else "gloo",
        init_method="env://" if elastic else f"file://{(scratch / 'rendezvous').resolve()}",
        rank=rank,
        world_size=cell["world"],
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
