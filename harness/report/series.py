"""A table's numbers as plots need them: one series per technique and options."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from harness.card import Metric
from harness.report.tables import Row, Table, axis_text, canonical
from harness.statistics import Estimate

REPEATS = "seed"  # the axis that repeats a setting: figures show its range


@dataclass(frozen=True, slots=True)
class Series:
    """One technique with one set of options, over the settings it was measured in."""

    label: str
    is_peer: bool
    points: Mapping[str, Estimate]  # setting text -> estimate in the column's unit

    @property
    def middle(self) -> float:
        """Median over the settings."""
        return median(point.value for point in self.points.values())

    def within(self, settings: Collection[str]) -> "Series":
        """The same technique in these settings alone."""
        return replace(self, points={s: p for s, p in self.points.items() if s in settings})


def essential(table: Table) -> Table:
    """The table without numbers that follow from the other axes, as rounds do from the length."""
    axes = list(table.axes)
    for axis in reversed(table.axes):
        others = [other for other in axes if other not in (axis, REPEATS)]
        if axis != REPEATS and is_numeric(table, axis) and _follows(table.rows, axis, others):
            axes.remove(axis)
    return _with_axes(table, axes)


def implied(table: Table, free: Table) -> str:
    """The axes that `essential` took away, for a caption."""
    gone = [axis for axis in table.axes if axis not in free.axes]
    return f" Set with the other axes: {', '.join(gone)}." if gone else ""


def is_numeric(table: Table, axis: str) -> bool:
    """Whether the axis holds numbers alone, but for techniques that do not have it."""
    values = [row.axes[axis] for row in table.rows if row.axes[axis] is not None]
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def held(table: Table, axes: Collection[str]) -> tuple[Table, str]:
    """The rows with the commonest values of the other axes, over these alone; those in words."""
    others = [axis for axis in table.axes if axis not in (*axes, REPEATS)]

    def rest(row: Row) -> str:
        return ", ".join(f"{other} {axis_text(row.axes[other]) or 'none'}" for other in others)

    rows = [row for row in table.rows if all(row.axes[axis] is not None for axis in axes)]
    counts = Counter(rest(row) for row in rows if row.entries)
    commonest = max(counts, key=counts.__getitem__, default="")
    piece = replace(table, rows=tuple(row for row in rows if rest(row) == commonest))
    return _with_axes(piece, [axis for axis in table.axes if axis not in others]), commonest


def series(table: Table, metric: Metric) -> list[Series]:
    """The metric's values in the column's unit, one series per technique and options."""
    factor = table.scales[metric.name].factor
    found: dict[str, tuple[bool, dict[str, list[Estimate]]]] = {}
    for row in table.rows:
        if metric.name in row.entries:
            _, points = found.setdefault(label(row), (row.is_peer, {}))
            estimate = _scaled(row.entries[metric.name].estimate, factor)
            points.setdefault(setting_text(row), []).append(estimate)
    return [
        Series(name, is_peer, {setting: _pooled(repeats) for setting, repeats in points.items()})
        for name, (is_peer, points) in found.items()
    ]


def label(row: Row) -> str:
    """The technique's name in the table with the options that vary."""
    options = " ".join(f"{key}={axis_text(value)}" for key, value in row.options.items())
    return f"{row.name} {options}".strip()


def setting_text(row: Row) -> str:
    """The varying axes in one line, repetitions apart; empty if nothing varies."""
    return ", ".join(axis_text(row.axes[axis]) or "none" for axis in row.axes if axis != REPEATS)


def setting_names(rows: Sequence[Row]) -> dict[str, str]:
    """A short name for each setting of these rows: of the axes, those in which they differ."""
    axes = [
        axis
        for axis in (rows[0].axes if rows else ())
        if axis != REPEATS and len({axis_text(row.axes[axis]) for row in rows}) > 1
    ]
    return {
        setting_text(row): ", ".join(axis_text(row.axes[axis]) or "none" for axis in axes)
        for row in rows
    }


def _with_axes(table: Table, axes: Sequence[str]) -> Table:
    rows = tuple(replace(row, axes={axis: row.axes[axis] for axis in axes}) for row in table.rows)
    return replace(table, axes=tuple(axes), rows=rows)


def _follows(rows: Sequence[Row], axis: str, others: Sequence[str]) -> bool:
    seen: dict[str, Any] = {}
    keys = [canonical([row.axes[other] for other in others]) for row in rows]
    values = [row.axes[axis] for row in rows]
    return all(seen.setdefault(k, value) == value for k, value in zip(keys, values, strict=True))


def _pooled(estimates: Sequence[Estimate]) -> Estimate:
    """The one estimate, or the median of several with their range."""
    if len(estimates) == 1:
        return estimates[0]
    values = [estimate.value for estimate in estimates]
    return Estimate(median(values), min(values), max(values))


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    value, low, high = estimate
    if low is None or high is None:
        return Estimate(value / factor, None, None)
    return Estimate(value / factor, low / factor, high / factor)
