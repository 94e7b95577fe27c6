"""How long cells will take, judged by what they took before."""

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from harness.cell import Cell

_NEWEST = 2000  # records that an estimate reads


def estimate_s(results: Path, cells: Sequence[Cell]) -> tuple[float, int]:
    """Seconds the cells took in earlier runs, and how many cells nobody has run before."""
    earlier = _earlier(results)
    known = [earlier[cell.suite, cell.technique] for cell in cells if
             (cell.suite, cell.technique) in earlier]  # fmt: skip
    return sum(known), len(cells) - len(known)


def _earlier(results: Path) -> dict[tuple[str, str], float]:
    """Median seconds a cell of each suite and technique took, from the newest records."""
    files = [path for path in results.glob("*/cells/*.json") if not path.name.startswith(".")]
    newest = sorted(files, key=_modified)[-_NEWEST:]
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for path in newest:
        try:
            record = json.loads(path.read_bytes())
            if record["outcome"] == "ok":
                times[record["suite"], record["technique"]].append(record["wall_s"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # an estimate leaves out what it cannot read; the run itself will name it
    return {key: statistics.median(values) for key, values in times.items()}


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # set aside by another process meanwhile
        return 0.0


def told_time(seconds: float) -> str:
    """Seconds for people: `48 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
