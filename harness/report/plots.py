"""Figures of a suite's metrics: ranked bars with intervals, or curves along a numeric axis."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from harness.card import Metric
from harness.report.axes import COLOURS, LETTER, axis_label, canvas, number_axis
from harness.report.quantities import Scale
from harness.report.series import REPEATS, Series, series, setting_text
from harness.report.svg import INK, Plot, plot, style
from harness.report.tables import Table
from harness.statistics import Estimate

MAX_GROUPS = len(COLOURS)  # settings told apart by colour; more are summed up
MAX_CURVES = 12
MAX_TICKS = 8  # of a curve's axis, before round numbers take the place of the measured ones
_CURVE_HEIGHT = 250
_LINE = 12  # height of a curve's name
_DASHES = ("-", "--", "-.")


def plots(table: Table) -> list[Plot]:
    """One figure per metric that was measured."""
    with style():
        return [_plot(table, metric) for metric in table.metrics if series(table, metric)]


def _plot(table: Table, metric: Metric) -> Plot:
    shown = series(table, metric)
    settings = list(dict.fromkeys(setting_text(row) for row in table.rows))
    axis = _curve_axis(table) if len(shown) <= MAX_CURVES else None
    if axis:
        figure, how = _curves(table, metric, shown, axis), f" Curves along {axis}."
    elif len(settings) <= MAX_GROUPS:
        figure, how = _bars(table, metric, shown, settings), ""
    else:
        figure = _bars(table, metric, shown, [])
        how = f" Bars: median over {len(settings)} settings, whiskers: their range."
    if axis or len(settings) <= MAX_GROUPS:
        whiskers = "range over seeds" if REPEATS in table.axes else "95 % intervals"
        how += f" Whiskers: {whiskers}." * _has_intervals(shown)
    if any(one.is_peer for one in shown):
        how += " Dotted: peers." if axis else " Hatched or hollow: peers."
    return plot(
        figure,
        slug=f"{table.name}-{metric.name}",
        title=metric.name,
        caption=f"{_span(shown, metric, table.scales[metric.name])}{how}{_gaps(shown, settings)}",
    )


def _span(shown: Sequence[Series], metric: Metric, scale: Scale) -> str:
    """The figure in a sentence."""
    ends = [pick(shown, key=lambda one: one.middle) for pick in (min, max)]
    texts = [
        f"{one.label} {Scale(1, scale.unit).text(Estimate(one.middle, None, None))} {scale.unit}"
        for one in ends
    ]
    direction = "" if metric.better == "neither" else f"; {metric.better} is better"
    return f"From {texts[0].rstrip()} to {texts[1].rstrip()}{direction}."


def _has_intervals(shown: Sequence[Series]) -> bool:
    return any(point.low is not None for one in shown for point in one.points.values())


def _gaps(shown: Sequence[Series], settings: Sequence[str]) -> str:
    missing = [one.label for one in shown if len(one.points) < len(settings)]
    return f" Not measured in every setting: {', '.join(missing)}." if missing else ""


def _curve_axis(table: Table) -> str | None:
    """The axis to draw curves along: the only one that varies, numeric, three values or more."""
    axes = [axis for axis in table.axes if axis != REPEATS]
    if len(axes) != 1:
        return None
    values = [row.axes[axes[0]] for row in table.rows]
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return None
    return axes[0] if len(set(values)) >= 3 else None


def _bars(table: Table, metric: Metric, shown: Sequence[Series], settings: Sequence[str]) -> Figure:
    """Horizontal bars, best on top; one colour per setting, or the median over all settings."""
    ranked = sorted(shown, key=lambda one: one.middle, reverse=metric.better != "lower")
    groups = list(settings) or [""]
    pitch = 20 if len(groups) == 1 else 9 * len(groups) + 8
    thick = 0.6 if len(groups) == 1 else 9 / pitch
    longest = max(len(one.label) for one in ranked)
    figure, axes = canvas(
        len(ranked) * pitch, left=16 + LETTER * longest, top=24 if len(groups) > 1 else 6
    )
    drawn = {
        group: [one.points.get(group) if settings else one.summary for one in ranked]
        for group in groups
    }
    log = number_axis(axes, "x", [e.value for column in drawn.values() for e in column if e])
    for index, (group, column) in enumerate(drawn.items()):
        offset = (index - (len(groups) - 1) / 2) * thick
        for place, (one, estimate) in enumerate(zip(ranked, column, strict=True)):
            if estimate is not None:
                _bar(axes, (place + offset, thick), estimate, (COLOURS[index], one.is_peer, log))
        if len(groups) > 1:
            axes.plot([], [], color=COLOURS[index], linewidth=6, label=group)
    axes.set_yticks(range(len(ranked)), [one.label for one in ranked])
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(axis_label(metric, table.scales[metric.name]))
    if len(groups) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(groups), borderpad=0)
    return figure


def _bar(
    axes: Axes, place: tuple[float, float], estimate: Estimate, look: tuple[str, bool, bool]
) -> None:
    """A bar from zero; on a logarithmic axis, which has no zero, a dot."""
    (y, thick), (colour, hollow, log) = place, look
    if log:
        face = "none" if hollow else colour
        axes.plot([estimate.value], [y], "o", color=colour, markerfacecolor=face)
    else:
        face, hatch = ("none", "////") if hollow else (colour, None)
        axes.barh(
            y, estimate.value, thick, facecolor=face, edgecolor=colour, hatch=hatch, linewidth=0.8
        )
    if estimate.low is not None and estimate.high is not None:
        ends = [estimate.low, estimate.high]
        axes.plot(ends, [y, y], color=INK, linewidth=1.3, solid_capstyle="butt")


def _curves(table: Table, metric: Metric, shown: Sequence[Series], axis: str) -> Figure:
    """One line per technique with its intervals, named at its right end."""
    places = {setting_text(row): float(row.axes[axis]) for row in table.rows}
    longest = max(len(one.label) for one in shown)
    figure, axes = canvas(_CURVE_HEIGHT, left=56, right=16 + LETTER * longest)
    number_axis(axes, "x", list(places.values()), wide=8)
    number_axis(axes, "y", [point.value for one in shown for point in one.points.values()])
    if len(places) <= MAX_TICKS:
        axes.set_xticks(sorted(places.values()))
        axes.xaxis.set_minor_locator(NullLocator())
    ends = {}
    for index, one in enumerate(shown):
        colour = COLOURS[index % len(COLOURS)]
        dash = ":" if one.is_peer else _DASHES[index // len(COLOURS)]
        points = sorted((places[setting], point) for setting, point in one.points.items())
        xs, ys = [x for x, _ in points], [point.value for _, point in points]
        axes.plot(xs, ys, dash, color=colour, marker="o", markersize=3.5)
        for x, (_, low, high) in points:
            if low is not None and high is not None:
                axes.plot([x, x], [low, high], color=colour, linewidth=3, alpha=0.45)
        ends[one.label] = (xs[-1], ys[-1], colour)
    axes.set_xlabel(axis)
    axes.set_title(axis_label(metric, table.scales[metric.name], "y"), loc="left", fontsize=11)
    _name_ends(axes, ends)
    return figure


def _name_ends(axes: Axes, ends: Mapping[str, tuple[float, float, str]]) -> None:
    """Labels right of the lines, level with their ends as far as they do not overlap."""
    axes.autoscale_view()
    edge, roof = axes.transAxes.transform((1, 1)).tolist()
    ordered = sorted(ends.items(), key=lambda end: end[1][1])
    at = [axes.transData.transform(end[:2]).tolist() for _, end in ordered]
    heights = _spread([height for _, height in at], roof)
    for (name, (x, y, colour)), (across, up), height in zip(ordered, at, heights, strict=True):
        axes.annotate(
            name, (x, y), (edge - across + 6, height - up), textcoords="offset pixels",
            color=colour, va="center", annotation_clip=False, fontsize=10,
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
