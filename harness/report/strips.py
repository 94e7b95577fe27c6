"""Where each value and its interval lie in their column, for the strip drawn under the number."""

import math
from collections.abc import Callable, Sequence

from harness.report.axes import WIDE
from harness.report.tables import Entry, Row, Table

_RESOLUTION = 1000  # positions from the column's lowest bound to its highest


def strips(table: Table) -> dict[str, dict[str, str]]:
    """Metric -> cell id -> `value low high baseline` in thousandths, - for what is not known.

    A column of positive numbers that span `WIDE` or more is drawn by their logarithms.
    """
    return {metric.name: _column(table.rows, metric.name) for metric in table.metrics}


def _column(rows: Sequence[Row], metric: str) -> dict[str, str]:
    entries = {row.record.cell_id: row.entries[metric] for row in rows if metric in row.entries}
    bounds = [bound for entry in entries.values() for bound in _known(entry)]
    if len(entries) < 2 or min(bounds) == max(bounds):
        return {}
    log = min(bounds) > 0 and max(bounds) / min(bounds) >= WIDE
    low, high = ((math.log(x) if log else x) for x in (min(bounds), max(bounds)))

    def place(value: float) -> str:
        return str(round(_RESOLUTION * ((math.log(value) if log else value) - low) / (high - low)))

    return {cell_id: _strip(entry, place) for cell_id, entry in entries.items()}


def _known(entry: Entry) -> list[float]:
    return [bound for bound in entry.estimate if bound is not None]


def _strip(entry: Entry, place: Callable[[float], str]) -> str:
    marks = [*entry.estimate, None if entry.ratio is None else entry.baseline]
    return " ".join("-" if mark is None else place(mark) for mark in marks)
