"""How long cells will take, judged by what they took before."""

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from harness.cell import Cell, Options, digest

_NEWEST = 2000  # records that an estimate reads


def estimate_s(results: Path, cells: Sequence[Cell]) -> tuple[float, int]:
    """Seconds the cells took in earlier runs, and how many cells nobody has run before.

    A cell is judged by those of its own options and setting; where there is none, by others of its
    suite and technique.
    """
    earlier = _earlier(results)
    kinds = [_kinds(cell.suite, cell.technique, cell.options, cell.setting) for cell in cells]
    known = [
        next(earlier[k] for k in kind if k in earlier) for kind in kinds if kind[-1] in earlier
    ]
    return sum(known), len(cells) - len(known)


def _earlier(results: Path) -> dict[str, float]:
    """Median seconds a cell of each kind took, from the newest records."""
    files = [path for path in results.glob("*/cells/*.json") if not path.name.startswith(".")]
    newest = sorted(files, key=_modified)[-_NEWEST:]
    times: dict[str, list[float]] = defaultdict(list)
    for path in newest:
        try:
            record = json.loads(path.read_bytes())
            if record["outcome"] == "ok":
                identity = (record[k] for k in ("suite", "technique", "options", "setting"))
                for kind in _kinds(*identity):
                    times[kind].append(record["wall_s"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # an estimate leaves out what it cannot read; the run itself will name it
    return {key: statistics.median(values) for key, values in times.items()}


def _kinds(suite: str, technique: str, options: Options, setting: Options) -> tuple[str, str]:
    """What a cell is judged by, nearest first."""
    return digest([suite, technique, dict(options), dict(setting)]), digest([suite, technique])


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
