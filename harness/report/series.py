"""A table's numbers as plots need them: one series per technique and options."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from harness.card import Metric
from harness.report.tables import Row, Table, axis_text
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
