"""Heat maps: techniques by settings, or each technique over two axes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from harness.card import Metric
from harness.report.axes import LETTER, WIDTH, canvas, short
from harness.report.quantities import brief, digits
from harness.report.series import REPEATS, Series, held, label, series
from harness.report.tables import Table, axis_text, order

MAX_ROWS, MAX_COLUMNS = 40, 24
MAX_PANELS = 12  # techniques of which the map over two axes is drawn
_FEWEST = 5  # fields of a map; fewer are told apart by a bar's colour
_FILLED = 0.5  # share of measured fields from which a map tells more than its gaps
_SHARED = 0.25  # of the techniques, for maps of both axes to be worth their place
_PITCH = 20  # height of a row
_LETTERS = 24  # of a row's or a column's name
_ROOM, _DIGIT = 34, 5.4  # width of a field with a number in it, and of one digit
_GAP, _HEAD, _FOOT = 14, 18, 18  # around a panel: beside it, for its name, for its columns
_COLOURS = "cividis"  # even steps, readable in light, in dark and by the colour-blind
_DARK = 0.55  # below it a colour needs a light number

Field = NDArray[np.float64]  # values by row and column; NaN where nothing was measured


@dataclass(frozen=True, slots=True)
class Contest:
    """Techniques down the rows, settings across."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: Field
    across: str  # the axes that the settings differ in


@dataclass(frozen=True, slots=True)
class Surfaces:
    """Each technique over the same two axes; the other axes hold still."""

    down: str
    across: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: dict[str, Field]  # by technique
    rest: str  # the other axes' values


def contest(table: Table, shown: Sequence[Series]) -> Contest | None:
    """The metric's values as a map worth drawing: neither too large nor mostly empty."""
    settings = list(dict.fromkeys(s for one in shown for s in one.points))
    axes = ", ".join(axis for axis in table.axes if axis != REPEATS)
    values = np.array([[_value(one, setting) for setting in settings] for one in shown])
    found = Contest(tuple(one.label for one in shown), tuple(settings), values, axes)
    fits = 2 <= len(shown) <= MAX_ROWS and 2 <= len(settings) <= MAX_COLUMNS
    return found if fits and _is_filled(values) else None


def draw_contest(found: Contest, metric: Metric) -> tuple[Figure, str]:
    """The map, bright where it is good, best row on top; and how to read it."""
    found = _ranked(found, metric)
    rows, columns = ([short(name, _LETTERS * LETTER) for name in names]
                     for names in (found.rows, found.columns))  # fmt: skip
    left = 16 + LETTER * max(map(len, rows))
    longest = LETTER * max(map(len, columns))
    slanted = longest > (WIDTH - left) / len(columns)
    bottom = 44 + slanted * 0.55 * longest
    figure, axes = canvas(len(rows) * _PITCH, left=left, top=6, bottom=bottom)
    n_digits = _fitting(found.values, (WIDTH - left) / len(columns))
    _draw(axes, found.values, _shades(found.values, metric.better, axis=0), n_digits)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns)
    if slanted:
        for text in axes.get_xticklabels():
            text.set(rotation=30, ha="right", rotation_mode="anchor")
    axes.set_xlabel(short(found.across, WIDTH / 2))
    return figure, f" Brighter: {_bright(metric)} within a column; empty: not measured."


def surfaces(table: Table, metric: Metric) -> Surfaces | None:
    """The two axes over which most was measured, if that is a map worth drawing."""
    axes = [axis for axis in table.axes if axis != REPEATS]
    pairs = filter(None, (_over(table, metric, pair) for pair in combinations(axes, 2)))
    found = max(pairs, key=_measured, default=None)
    techniques = len({label(row) for row in table.rows if metric.name in row.entries})
    return found if found and len(found.values) >= _SHARED * techniques else None


def draw_surfaces(found: Surfaces, metric: Metric) -> tuple[Figure, str]:
    """A panel per technique, all in the same colours; and how to read them."""
    names = list(found.values)[:MAX_PANELS]
    values = np.array([found.values[name] for name in names])
    rows = [short(name, _LETTERS / 2 * LETTER) for name in found.rows]
    left = 30 + LETTER * max(map(len, rows))
    abreast = _abreast(len(names), left, len(found.columns))
    room = ((WIDTH - left) / abreast - _GAP) / len(found.columns)  # width of a field
    columns = [short(name, room) for name in found.columns]
    lines = -(-len(names) // abreast)
    high = _HEAD + _PITCH * len(rows) + _FOOT
    n_digits = _fitting(values, room)
    figure, whole = canvas(lines * high, left=left, right=4, top=0, bottom=20)
    whole.set_axis_off()
    for place, (name, shade) in enumerate(zip(names, _shades(values, metric.better), strict=True)):
        line, column = divmod(place, abreast)
        box = _box(column / abreast, line / lines, (abreast, lines), high)
        axes = whole.inset_axes(box)
        _draw(axes, found.values[name], shade, n_digits)
        axes.set_title(short(name, 0.9 * (WIDTH - left) / abreast), fontsize=10, loc="left", pad=4)
        axes.set_xticks(np.arange(len(columns)) + 0.5, columns, fontsize=9)
        if column == 0:
            axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
            axes.set_ylabel(short(found.down, 16 * LETTER))
        else:
            axes.yaxis.set_visible(False)
    figure.text(left / WIDTH, 4 / figure.bbox.height, short(found.across, WIDTH / 2))
    colours = f" Colours: {digits(np.nanmin(values))} to {digits(np.nanmax(values))}."
    return figure, _how(found, metric, len(names)) + colours


def _how(found: Surfaces, metric: Metric, n_drawn: int) -> str:
    text = f" Down: {found.down}; across: {found.across}"
    text += f"; at {found.rest}." if found.rest else "."
    if n_drawn < len(found.values):
        text += f" The first {n_drawn} of {len(found.values)} techniques."
    return f"{text} Brighter: {_bright(metric)}, in the same colours for all; empty: not measured."


def _abreast(panels: int, left: float, columns: int) -> int:
    """As many panels in a line as leave room for numbers, and no line with one alone."""
    most = max(1, int((WIDTH - left) / (_ROOM * columns + _GAP)))
    lines = -(-panels // most)
    return -(-panels // lines)


def _box(
    x: float, y: float, grid: tuple[int, int], high: float
) -> tuple[float, float, float, float]:
    """Where a panel lies in the whole, in shares of it."""
    abreast, lines = grid
    gap = _GAP / WIDTH
    bottom = 1 - y - (high - _FOOT) / high / lines
    return x, bottom, 1 / abreast - gap, (high - _HEAD - _FOOT) / high / lines


def _over(table: Table, metric: Metric, pair: tuple[str, str]) -> Surfaces | None:
    piece, rest = held(table, pair)
    rows, columns = (_ticks(row.axes[axis] for row in piece.rows) for axis in pair)
    sizes = len(rows), len(columns)
    if min(sizes) < 2 or max(sizes) > MAX_COLUMNS or len(rows) * len(columns) < _FEWEST:
        return None
    values = {
        one.label: np.array(
            [[_value(one, f"{row}, {column}") for column in columns] for row in rows]
        )
        for one in series(piece, metric)
    }
    filled = {name: field for name, field in values.items() if _is_filled(field)}
    return Surfaces(*pair, rows, columns, filled, rest) if filled else None


def _ticks(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(axis_text(value) for value in sorted(values, key=order)))


def _measured(found: Surfaces) -> int:
    return sum(int(np.isfinite(field).sum()) for field in found.values.values())


def _is_filled(values: Field) -> bool:
    return bool(np.isfinite(values).mean() >= _FILLED)


def _value(one: Series, setting: str) -> float:
    return one.points[setting].value if setting in one.points else np.nan


def _draw(axes: Axes, values: Field, shades: Field, n_digits: int) -> None:
    """The fields of one map, the first row on top, with numbers of so many digits."""
    axes.pcolormesh(shades, cmap=_COLOURS, vmin=0, vmax=1, edgecolors="none")
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.set_frame_on(False)
    for (row, column), value in np.ndenumerate(values):
        if n_digits and np.isfinite(value):
            ink = "#ffffff" if shades[row, column] < _DARK else "#000000"
            place, text = (column + 0.5, row + 0.5), brief(value, n_digits)
            axes.text(*place, text, ha="center", va="center", color=ink, fontsize=8.5)


def _fitting(values: Field, room: float) -> int:
    """How many digits fit into all fields; 0 for no numbers at all."""
    known = values[np.isfinite(values)]
    for n_digits in (3, 2):
        if (max(len(brief(value, n_digits)) for value in known) + 0.5) * _DIGIT <= room:
            return n_digits
    return 0


def _bright(metric: Metric) -> str:
    return "larger" if metric.better == "neither" else "better"


def _ranked(found: Contest, metric: Metric) -> Contest:
    """The rows by their mean place in the columns, best first."""
    if metric.better == "neither":
        return found
    places = np.nanmean(_shades(found.values, metric.better, axis=0), axis=1)
    best = np.argsort(-places, kind="stable")
    rows = tuple(found.rows[index] for index in best)
    return replace(found, rows=rows, values=found.values[best])


def _shades(values: Field, better: str, axis: int | None = None) -> Field:
    """0 for the worst and 1 for the best along the axis, evenly by ratio where all are > 0."""
    sizes = np.log(values) if np.nanmin(values) > 0 else values
    low, high = np.nanmin(sizes, axis=axis), np.nanmax(sizes, axis=axis)
    width = np.where(high > low, high - low, np.nan)
    shares = np.where(np.isfinite(sizes) & ~(high > low), 0.5, (sizes - low) / width)
    return 1 - shares if better == "lower" else shares
