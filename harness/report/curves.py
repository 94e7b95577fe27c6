"""Curves along a numeric axis, and how fast they grow: the slope of a line through the logarithms.

value ∝ axis^slope
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy.stats import linregress

from harness.card import Metric
from harness.report.axes import COLOURS, LETTER, MOST_BESIDE, axis_label, canvas, number_axis, short
from harness.report.quantities import digits
from harness.report.series import REPEATS, Series, held, is_numeric, setting_text
from harness.report.tables import Table

MAX_CURVES = 12
MAX_TICKS = 8  # of a curve's axis, before round numbers take the place of the measured ones
MIN_POINTS = 3  # of a curve; two make a line of anything
_HEIGHT = 250
_LINE = 12  # height of a curve's name
_DOTTED = 24  # points of a curve that are marked one by one; of more, a band shows the intervals
_DASHES = ("-", "--", "-.")
_SPAN = 4  # largest over smallest place from which the axis is logarithmic
End = tuple[str, float, float, str]  # name, x, y, colour


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows that differ along one numeric axis (and in seeds) only."""

    axis: str
    table: Table
    rest: str  # the other axes' values, which all rows share

    @property
    def places(self) -> dict[str, float]:
        """Where each setting lies on the axis."""
        return {setting_text(row): float(row.axes[self.axis]) for row in self.table.rows}


def best_slice(table: Table) -> Slice | None:
    """The axis along which most techniques were measured three times or more, if there is one."""
    axes = [axis for axis in table.axes if axis != REPEATS and is_numeric(table, axis)]
    slices = [Slice(axis, *held(table, (axis,))) for axis in axes]
    found = max(slices, key=_long_curves, default=None)
    return found if found and _long_curves(found) else None


def slope(places: Sequence[float], values: Sequence[float]) -> float | None:
    """The exponent of a power law; None for fewer than three places or values that are not > 0."""
    if len(set(places)) < MIN_POINTS or min(*places, *values) <= 0:
        return None
    return float(linregress(np.log(places), np.log(values)).slope)


def curves(piece: Slice, metric: Metric, shown: Sequence[Series]) -> tuple[Figure, str]:
    """One line per technique with its intervals, named at its right end; and how to read it."""
    places = piece.places
    drawn = _leading(shown, metric, piece)
    slopes = _slopes(drawn, places)
    names = [_name(one.label, slopes.get(one.label)) for one in drawn]
    right = 16 + LETTER * max(len(name) for name in names)
    figure, axes = canvas(_HEIGHT, left=56, right=right)
    number_axis(axes, "x", list(places.values()), wide=_SPAN)
    values = [point.value for one in drawn for point in one.points.values()]
    number_axis(axes, "y", values, **({"wide": 1} if slopes else {}))
    if len(set(places.values())) <= MAX_TICKS:
        axes.set_xticks(_apart(axes, sorted(set(places.values()))))
        axes.xaxis.set_minor_locator(NullLocator())
    ends: list[End] = []
    for index, (one, name) in enumerate(zip(drawn, names, strict=True)):
        look = (COLOURS[index % len(COLOURS)], ":" if one.is_peer else _dash(index))
        ends.append((name, *_curve(axes, one, places, look), look[0]))
    axes.set_xlabel(piece.axis)
    title = axis_label(metric, piece.table.scales[metric.name], "y")
    axes.set_title(title, loc="left", fontsize=11)
    _name_ends(axes, ends)
    return figure, _how(piece, len(shown), len(drawn), slopes)


def _apart(axes: Axes, places: Sequence[float]) -> list[float]:
    """The places whose numbers do not run into the one before."""
    kept, edge = [], -np.inf
    for place in places:
        at = axes.transData.transform((place, 1))[0]
        half = LETTER * (len(digits(place, 6)) + 1) / 2
        if at - half >= edge:
            kept.append(place)
            edge = at + half
    return kept


def _long_curves(piece: Slice) -> int:
    """How many techniques were measured at three places of the axis or more."""
    places: dict[str, set[float]] = {}
    for row in piece.table.rows:
        if row.entries:
            places.setdefault(row.record.technique, set()).add(row.axes[piece.axis])
    return sum(len(found) >= MIN_POINTS for found in places.values())


def _leading(shown: Sequence[Series], metric: Metric, piece: Slice) -> list[Series]:
    """All of them, or the best at the far end in the order recorded, so that colours stay."""
    if len(shown) <= MAX_CURVES:
        return list(shown)
    places = piece.places

    def end(one: Series) -> tuple[float, float]:
        last = max(one.points, key=lambda setting: places[setting])
        value = one.points[last].value
        return -places[last], value if metric.better == "lower" else -value

    kept = {one.label for one in sorted(shown, key=end)[:MAX_CURVES]}
    return [one for one in shown if one.label in kept]


def _slopes(shown: Sequence[Series], places: Mapping[str, float]) -> dict[str, float]:
    """The exponents of curves that span enough; none where a number has no logarithm."""
    found = {}
    for one in shown:
        values = [point.value for point in one.points.values()]
        at = [places[setting] for setting in one.points]
        if min(*values, *places.values(), 1) <= 0:
            return {}
        if max(at) / min(at) >= _SPAN and (fitted := slope(at, values)) is not None:
            found[one.label] = fitted
    return found


def _name(label: str, exponent: float | None) -> str:
    slope = "" if exponent is None else f" ^{round(exponent, 2) + 0:.2f}".replace("-", "−")
    return short(label, MOST_BESIDE - 16 - LETTER * len(slope)) + slope


def _dash(index: int) -> str:
    return _DASHES[index // len(COLOURS) % len(_DASHES)]


def _curve(
    axes: Axes, one: Series, places: Mapping[str, float], look: tuple[str, str]
) -> tuple[float, float]:
    """Draw it; its right end."""
    colour, dash = look
    points = sorted((places[setting], point) for setting, point in one.points.items())
    xs, ys = [x for x, _ in points], [point.value for _, point in points]
    bounded = [(x, e.low, e.high) for x, e in points if e.low is not None and e.high is not None]
    if len(points) > _DOTTED:
        axes.plot(xs, ys, dash, color=colour, linewidth=1)
        if bounded:
            at, lows, highs = zip(*bounded, strict=True)
            axes.fill_between(at, lows, highs, color=colour, alpha=0.2, linewidth=0)
        return xs[-1], ys[-1]
    axes.plot(xs, ys, dash, color=colour, marker="o", markersize=3.5)
    for x, low, high in bounded:
        axes.plot([x, x], [low, high], color=colour, linewidth=3, alpha=0.45)
    return xs[-1], ys[-1]


def _how(piece: Slice, n_shown: int, n_drawn: int, slopes: Mapping[str, float]) -> str:
    text = f" Curves along {piece.axis}"
    text += f" at {piece.rest}." if piece.rest else "."
    if n_drawn < n_shown:
        text += f" The {n_drawn} of {n_shown} best at its end."
    if slopes:
        text += f" ^s: grows with {piece.axis} to the power s."
    return text


def _name_ends(axes: Axes, ends: Sequence[End]) -> None:
    """Labels right of the lines, level with their ends as far as they do not overlap.

    A thin line leads on from a curve that ends early.
    """
    axes.autoscale_view()
    edge, roof = axes.transAxes.transform((1, 1)).tolist()
    ordered = sorted(ends, key=lambda end: end[2])
    at = [axes.transData.transform((x, y)).tolist() for _, x, y, _ in ordered]
    furthest = max(across for across, _ in at)
    heights = _spread([height for _, height in at], roof)
    for (name, x, y, colour), (across, up), height in zip(ordered, at, heights, strict=True):
        leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6}
        axes.annotate(
            name, (x, y), (edge - across + 6, height - up), textcoords="offset pixels",
            color=colour, va="center", annotation_clip=False, fontsize=10,
            arrowprops=leader if across < furthest else None,
        )  # fmt: skip


def _spread(heights: Sequence[float], roof: float) -> list[float]:
    """Ascending heights pushed up to keep a line apart, then down to stay under the roof."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + _LINE) if placed else height)
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], roof)
        roof = placed[index] - _LINE
    return placed
