"""Heat maps: techniques by settings, or one technique over two axes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from harness.card import Metric
from harness.report.axes import LETTER, WIDTH, canvas
from harness.report.series import REPEATS, Series
from harness.report.tables import Table, axis_text

MAX_ROWS, MAX_COLUMNS = 40, 24
_FILLED = 0.5  # share of measured fields from which a map tells more than its gaps
_PITCH = 20  # height of a row
_NUMBERS = 9  # columns at which there is still room for numbers
_COLOURS = "cividis"  # even steps, readable in light, in dark and by the colour-blind
_DARK = 0.55  # below it a colour needs a light number


@dataclass(frozen=True, slots=True)
class Grid:
    """Values by row and column; NaN where nothing was measured."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: NDArray[np.float64]
    across: str  # what the columns are
    techniques: bool  # down the rows, so that each column is a contest; else both are axes


def grid(table: Table, shown: Sequence[Series]) -> Grid | None:
    """The metric's values as a map worth drawing: neither too large nor mostly empty."""
    axes = [axis for axis in table.axes if axis != REPEATS]
    if len(shown) == 1 and len(axes) == 2:
        found = _over_axes(table, shown[0], axes)
    else:
        settings = list(dict.fromkeys(s for one in shown for s in one.points))
        values = [[_value(one, setting) for setting in settings] for one in shown]
        labels = tuple(one.label for one in shown)
        found = Grid(labels, tuple(settings), np.array(values), ", ".join(axes), True)
    n_rows, n_columns = found.values.shape
    fits = 2 <= n_rows <= MAX_ROWS and 2 <= n_columns <= MAX_COLUMNS
    return found if fits and np.isfinite(found.values).mean() >= _FILLED else None


def heat(found: Grid, metric: Metric) -> tuple[Figure, str]:
    """The map, bright where it is good, best row on top; and how to read it."""
    found = _ranked(found, metric) if found.techniques else found
    shades = _shades(found, metric.better)
    left = 16 + LETTER * max(len(row) for row in found.rows)
    wide = (WIDTH - left) / len(found.columns)
    slanted = max(len(column) for column in found.columns) * LETTER > wide
    longest = max(len(column) for column in found.columns)
    bottom = 44 + slanted * min(90, 0.55 * LETTER * longest)
    figure, axes = canvas(len(found.rows) * _PITCH, left=left, top=6, bottom=bottom)
    axes.pcolormesh(shades, cmap=_COLOURS, vmin=0, vmax=1, edgecolors="none")
    axes.set_yticks(np.arange(len(found.rows)) + 0.5, found.rows)
    axes.set_xticks(np.arange(len(found.columns)) + 0.5, found.columns)
    if slanted:
        for text in axes.get_xticklabels():
            text.set(rotation=30, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.set_frame_on(False)
    axes.set_xlabel(found.across)
    if len(found.columns) <= _NUMBERS:
        _write_numbers(axes, found.values, shades)
    bright = {"higher": "better", "lower": "better", "neither": "larger"}[metric.better]
    where = " within a column" * found.techniques
    return figure, f" Brighter: {bright}{where}; empty: not measured."


def _write_numbers(axes: Axes, values: NDArray[np.float64], shades: NDArray[np.float64]) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            ink = "#ffffff" if shades[row, column] < _DARK else "#000000"
            text = f"{value:.3g}".replace("-", "−")
            place = (column + 0.5, row + 0.5)
            axes.text(*place, text, ha="center", va="center", color=ink, fontsize=9)


def _over_axes(table: Table, one: Series, axes: Sequence[str]) -> Grid:
    """One technique: the first axis downwards, the second across."""
    down, across = (list(dict.fromkeys(axis_text(row.axes[a]) for row in table.rows)) for a in axes)
    values = [[_value(one, f"{row}, {column}") for column in across] for row in down]
    named = tuple(f"{axes[0]} {row}" for row in down)
    return Grid(named, tuple(across), np.array(values), axes[1], False)


def _value(one: Series, setting: str) -> float:
    return one.points[setting].value if setting in one.points else np.nan


def _ranked(found: Grid, metric: Metric) -> Grid:
    """The rows by their mean place in the columns, best first."""
    if metric.better == "neither":
        return found
    order = np.argsort(-np.nanmean(_shades(found, metric.better), axis=1), kind="stable")
    rows = tuple(found.rows[index] for index in order)
    return replace(found, rows=rows, values=found.values[order])


def _shades(found: Grid, better: str) -> NDArray[np.float64]:
    """0 for the worst and 1 for the best of a contest, evenly by ratio where all are > 0."""
    known = found.values[np.isfinite(found.values)]
    sizes = np.log(found.values) if known.min() > 0 else found.values
    axis = 0 if found.techniques else None
    low, high = np.nanmin(sizes, axis=axis), np.nanmax(sizes, axis=axis)
    width = np.where(high > low, high - low, np.nan)
    shares = np.where(np.isfinite(sizes) & ~(high > low), 0.5, (sizes - low) / width)
    return 1 - shares if better == "lower" else shares
