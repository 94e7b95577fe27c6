"""One cell in full: each metric's samples in five numbers and a line."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from harness.report.quantities import Scale, ratio_interval
from harness.report.tables import Entry, Row, Table
from harness.statistics import Estimate

HEIGHT = 20  # of the line, in pixels
_STEP = 2
_MOST_STEPS = 100


@dataclass(frozen=True, slots=True)
class Samples:
    """A sampled metric: texts in the column's unit."""

    metric: str
    unit: str
    count: int
    quantiles: tuple[str, ...]  # smallest, 25 %, median, 75 %, largest
    ratio: str  # to the baseline, with its interval
    path: str
    width: int


def samples(table: Table, row: Row) -> list[Samples]:
    """The row's metrics that keep raw samples."""
    return [
        _samples(name, entry, table.scales[name])
        for name, entry in row.entries.items()
        if entry.quantity.samples
    ]


def _samples(name: str, entry: Entry, scale: Scale) -> Samples:
    values, like = entry.quantity.samples, entry.estimate
    five = np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist()
    texts = tuple(scale.text(Estimate(value, like.low, like.high)) for value in five)
    ratio = "" if entry.ratio is None else ratio_interval(entry.ratio)
    return Samples(name, scale.unit, len(values), texts, ratio, *line(values))


def line(values: Sequence[float]) -> tuple[str, int]:
    """The samples in the order taken as an SVG path, `HEIGHT` tall, and its width.

    Of many samples, the lowest and highest of each step are drawn: none is hidden.
    """
    steps = min(len(values), _MOST_STEPS)
    edges = [len(values) * step // steps for step in range(steps + 1)]
    low, high = min(values), max(values)
    rise = HEIGHT / (high - low) if high > low else 0.0
    stops: list[tuple[int, int]] = []
    for step, (start, stop) in enumerate(pairwise(edges)):
        ends = dict.fromkeys((min(values[start:stop]), max(values[start:stop])))
        stops += [(step * _STEP, round(HEIGHT - (value - low) * rise)) for value in ends]
    moves = [f"{x - a} {y - b}" for (a, b), (x, y) in pairwise(stops)]
    path = f"M{stops[0][0]} {stops[0][1]}l{' '.join(moves) or '0 0'}".replace(" -", "-")
    return path, _STEP * (steps - 1)
