"""One cell in full, as JSON of texts: the page's script lays it out and knows no units.

A cell is {title, tags, lead, flags, commands, lists, metrics, conditions, log, shared}; what a cell
does not have is left out. `shared` numbers lists that many cells have in common.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from harness.card import Card
from harness.record import Floor, Record
from harness.report.doubts import flags
from harness.report.overview import flat_facts
from harness.report.quantities import Scale, percent, quantity, ratio_interval, scale
from harness.report.tables import Entry, Row, Table, canonical
from harness.statistics import Estimate

LOG_CHARACTERS = 2_000  # of a log tail on the page; the record has the rest
TOP = 99  # height of a trace
_MOST_STEPS = 100

Pairs = list[list[str]]


def cell(table: Table, row: Row, card: Card | None) -> dict[str, Any]:
    """Everything about one cell but its environment."""
    record = row.record
    lead = f"{card.summary} {card.paper}, {card.year}." if card else ""
    tags = ["peer"] * row.is_peer + ["baseline"] * row.is_baseline
    parts: dict[str, Any] = {
        "title": record.technique,
        "tags": tags,
        "lead": lead,
        "outcome": record.outcome,
        "reason": record.reason,
        "flags": flags(record),
        "commands": [["repeat this cell", record.command]],
        "lists": [
            ["Setting", pairs(record.setting)],
            ["Options", pairs(record.options)],
            ["Notes", pairs(record.notes)],
            ["Run", run_facts(record)],
        ],
        "metrics": [metric(n, e, table.scales[n]) for n, e in row.entries.items()],
        "conditions": conditions(record),
        "log": record.log_tail[-LOG_CHARACTERS:],
    }
    return {key: value for key, value in parts.items() if value}


def environment(record: Record) -> Pairs:
    """The machine and versions of one cell."""
    return [[f"{group} {name}".strip(), text] for group, name, text in flat_facts(record)]


def run_facts(record: Record) -> Pairs:
    """When and where it ran, and what it took."""
    where = record.device + (f" × {record.world} processes" if record.world > 1 else "")
    facts = {
        "cell": record.cell_id,
        "code": record.code,
        "where": where,
        "started": record.started,
        "in all": quantity("s", record.wall_s),
        "measuring": _known("s", record.measured_s),
        "CPU time": _known("s", record.cpu_s),
        "peak memory": _known("B", record.peak_rss_bytes),
        "load before, after": _loads(record),
        "took turns in relay": record.relay,
        "harness share of a core": _share(record.harness_cpu_share),
    }
    return [[name, text] for name, text in facts.items() if text]


def metric(name: str, entry: Entry, shown: Scale) -> dict[str, Any]:
    """One metric's row: its value, and its samples in five numbers and a trace."""
    q, estimate = entry.quantity, entry.estimate
    row: dict[str, Any] = {
        "name": name,
        "unit": shown.unit,
        "value": shown.text(estimate),
        "interval": shown.interval(estimate),
        "ratio": "" if entry.ratio is None else ratio_interval(entry.ratio),
        "floor": "" if q.floor is None else floor_text(q.floor),
    }
    if q.samples:
        five = _quantiles(q.samples, (0, 0.25, 0.5, 0.75, 1))
        row["five"] = [shown.text(Estimate(x, estimate.low, estimate.high)) for x in five]
        row["n"] = len(q.samples)
        row["trace"] = trace(q.samples, q.generations)
    return {key: value for key, value in row.items() if value != ""}


def conditions(record: Record) -> list[dict[str, Any]]:
    """What was watched beside the rounds: lowest, median, highest, and a trace of each."""
    rows = []
    for name, values in record.conditions.items():
        if values:
            shown = scale("1", values)
            three = _quantiles(values, (0, 0.5, 1))
            texts = [shown.text(Estimate(x, None, None)) for x in three]
            rows.append({"name": name, "three": texts, "trace": trace(values, [])})
    return rows


def floor_text(floor: Floor) -> str:
    """How near the work came to what the machine can do."""
    mark = " (impossible)" if floor.impossible else ""
    return (
        f"MFU {percent(floor.mfu)}, bandwidth {percent(floor.bandwidth_share)}; "
        f"at least {quantity('s', floor.seconds)} for {quantity('FLOP', floor.flops)} "
        f"and {quantity('B', floor.bytes)}{mark}"
    )


def trace(values: Sequence[float], generations: Sequence[int]) -> dict[str, Any]:
    """The values in the order taken as heights from 0 to `TOP`, `per` of them a step.

    Of many values, the lowest and highest of each step are kept: none is hidden. `breaks` are the
    steps at which another process went on.
    """
    steps = min(len(values), _MOST_STEPS)
    array = np.asarray(values, dtype=float)
    low, high = array.min(), array.max()
    heights = np.rint((array - low) * (TOP / (high - low) if high > low else 0)).astype(int)
    found: dict[str, Any] = {"points": heights.tolist()}
    if len(values) > steps:
        edges = [len(values) * step // steps for step in range(steps + 1)]
        parts = [heights[start:stop] for start, stop in pairwise(edges)]
        ends = [sorted((int(part.argmin()), int(part.argmax()))) for part in parts]
        points = [int(part[i]) for part, pair in zip(parts, ends, strict=True) for i in pair]
        found = {"points": points, "per": 2}
    if len(generations) > 1:
        starts = list(accumulate(generations))[:-1]
        found["breaks"] = [round(start * steps / len(values), 1) for start in starts]
    return found


def pairs(mapping: Mapping[str, Any]) -> Pairs:
    """Names and values as texts; of values that are mappings themselves, their members."""
    found: Pairs = []
    for name, value in mapping.items():
        if value and isinstance(value, Mapping):
            found += [[f"{name} {inner}", text] for inner, text in pairs(value)]
        else:
            text = value if value and isinstance(value, str) else canonical(_short(value))
            found.append([name, text])
    return found


def _quantiles(values: Sequence[float], shares: Sequence[float]) -> list[float]:
    """As numpy's, which takes ten times as long for few values, and a page has thousands."""
    last = len(values) - 1
    places = [share * last for share in shares]
    found: list[float] = np.interp(places, np.arange(last + 1), np.sort(values)).tolist()
    return found


def _short(value: Any) -> Any:
    """Floats of six digits, at any depth: the record has them all."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _short(member) for key, member in value.items()}
    return [_short(member) for member in value] if isinstance(value, list | tuple) else value


def _known(unit: str, value: float | None) -> str:
    return "" if value is None else quantity(unit, value)


def _share(value: float | None) -> str:
    return "" if value is None else percent(value, 2)


def _loads(record: Record) -> str:
    loads = [f"{load[0]:.2f}" for load in (record.load_before, record.load_after) if load]
    return ", ".join(loads)
