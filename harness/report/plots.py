"""Figures of a suite: curves along a numeric axis, a heat map of many settings, or ranked bars."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.card import Metric
from harness.report.axes import COLOURS, LETTER, WIDTH, axis_label, canvas, number_axis
from harness.report.curves import Slice, best_slice, curves
from harness.report.heat import grid, heat
from harness.report.quantities import Scale
from harness.report.series import REPEATS, Series, series, setting_names, setting_text
from harness.report.svg import INK, Plot, plot, style
from harness.report.tables import Table
from harness.statistics import Estimate

MAX_GROUPS = len(COLOURS)  # settings told apart by colour
_SHARED = 0.5  # of the techniques in the commonest setting, to be drawn beside it
_KEY = 60  # width of a legend's colour and gaps
MAX_PLOTS = 12  # of a suite; more are a table's work


def plots(table: Table) -> list[Plot]:
    """One figure per metric whose values differ, in the suite's order, at most `MAX_PLOTS`."""
    piece = best_slice(table)
    with style():
        return list(islice(_plots(table, piece), MAX_PLOTS))


def _plots(table: Table, piece: Slice | None) -> Iterator[Plot]:
    for metric in table.metrics:
        shown = series(table, metric)
        values = {point.value for one in shown for point in one.points.values()}
        if len(values) > 1:
            yield _plot(table, metric, shown, piece)


def _plot(table: Table, metric: Metric, shown: Sequence[Series], piece: Slice | None) -> Plot:
    along = series(piece.table, metric) if piece else []
    if piece and any(len(one.points) > 1 for one in along):
        table, shown = piece.table, along
        figure, how = curves(piece, metric, shown)
        how += _whiskers(table, shown) + " Dotted: peers." * any(one.is_peer for one in shown)
    else:
        shown, figure, how = _map_or_bars(table, metric, shown)
    return plot(
        figure,
        slug=f"{table.name}-{metric.name}",
        title=metric.name,
        caption=f"{_span(shown, metric, table.scales[metric.name])}{how}",
    )


def _map_or_bars(
    table: Table, metric: Metric, shown: Sequence[Series]
) -> tuple[Sequence[Series], Figure, str]:
    """A map where the settings are too many for colours and it is well filled, else bars.

    What is drawn comes first, the words on how to read it last.
    """
    counts = Counter(setting for one in shown for setting in one.points)
    if len(counts) > MAX_GROUPS and (found := grid(table, shown)) is not None:
        return (shown, *heat(found, metric))
    common = counts.most_common(MAX_GROUPS)
    kept = {setting for setting, count in common if count >= _SHARED * common[0][1]}
    names = setting_names([row for row in table.rows if setting_text(row) in kept])
    drawn = [cut for one in shown if (cut := one.within(kept)).points]
    how = _whiskers(table, drawn)
    if any(one.is_peer for one in drawn):
        how += " Hatched or hollow: peers."
    if len(counts) > len(kept):
        how += f" {_told(kept)} of {len(counts)} settings with most techniques."
    return drawn, _bars(table, metric, drawn, names), how + _gaps(drawn, names)


def _told(kept: set[str]) -> str:
    return f"Setting {next(iter(kept))}, the one" if len(kept) == 1 else f"The {len(kept)}"


def _span(shown: Sequence[Series], metric: Metric, scale: Scale) -> str:
    """The figure in a sentence."""
    ends = [pick(shown, key=lambda one: one.middle) for pick in (min, max)]
    texts = [
        f"{one.label} {Scale(1, scale.unit).text(Estimate(one.middle, None, None))} {scale.unit}"
        for one in ends
    ]
    direction = "" if metric.better == "neither" else f"; {metric.better} is better"
    return f"From {texts[0].rstrip()} to {texts[1].rstrip()}{direction}."


def _whiskers(table: Table, shown: Sequence[Series]) -> str:
    if all(point.low is None for one in shown for point in one.points.values()):
        return ""
    return f" Whiskers: {'range over seeds' if REPEATS in table.axes else '95 % intervals'}."


def _gaps(shown: Sequence[Series], settings: Collection[str]) -> str:
    missing = [one.label for one in shown if not set(settings) <= set(one.points)]
    return f" Not measured in every setting: {', '.join(missing)}." if missing else ""


def _bars(
    table: Table, metric: Metric, shown: Sequence[Series], settings: Mapping[str, str]
) -> Figure:
    """Horizontal bars, best on top; one colour per setting, under the name it is given."""
    ranked = sorted(shown, key=lambda one: one.middle, reverse=metric.better != "lower")
    pitch = 20 if len(settings) == 1 else 9 * len(settings) + 8
    thick = 0.6 if len(settings) == 1 else 9 / pitch
    longest = max(len(one.label) for one in ranked)
    n_lines = sum(len(name) * LETTER + _KEY for name in settings.values()) // WIDTH + 1
    figure, axes = canvas(
        len(ranked) * pitch,
        left=16 + LETTER * longest,
        top=6 + 18 * n_lines if len(settings) > 1 else 6,
    )
    drawn = {setting: [one.points.get(setting) for one in ranked] for setting in settings}
    log = number_axis(axes, "x", [e.value for column in drawn.values() for e in column if e])
    for index, (setting, column) in enumerate(drawn.items()):
        offset = (index - (len(settings) - 1) / 2) * thick
        for place, (one, estimate) in enumerate(zip(ranked, column, strict=True)):
            if estimate is not None:
                _bar(axes, (place + offset, thick), estimate, (COLOURS[index], one.is_peer, log))
        if len(settings) > 1:
            axes.plot([], [], color=COLOURS[index], linewidth=6, label=settings[setting])
    axes.set_yticks(range(len(ranked)), [one.label for one in ranked])
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(axis_label(metric, table.scales[metric.name]))
    if len(settings) > 1:
        n_columns = -(-len(settings) // int(n_lines))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=n_columns, borderpad=0)
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
