"""Figures of a suite: curves along a number, heat maps, ranked bars."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import islice

from matplotlib.figure import Figure

from harness.card import Metric
from harness.report.bars import MAX_GROUPS, bars
from harness.report.curves import Slice, best_slice, curves
from harness.report.heat import contest, draw_contest, draw_surfaces, surfaces
from harness.report.quantities import Scale
from harness.report.series import (
    REPEATS,
    Series,
    essential,
    implied,
    series,
    setting_names,
    setting_text,
)
from harness.report.svg import Plot, plot, style
from harness.report.tables import Table, axis_text
from harness.report.words import several
from harness.statistics import Estimate

_SHARED = 0.5  # of the techniques in the commonest setting, to be drawn beside it
MAX_PLOTS = 12  # of a suite; more are a table's work


def plots(table: Table) -> list[Plot]:
    """Figures of each metric whose values differ, in the suite's order, at most `MAX_PLOTS`.

    Curves along a number, maps over two axes, and bars where those leave out most techniques.
    """
    with style():
        return list(islice(_plots(table), MAX_PLOTS))


def _plots(table: Table) -> Iterator[Plot]:
    free = essential(table)
    piece = best_slice(free)
    for metric in table.metrics:
        shown = series(table, metric)
        if len({point.value for one in shown for point in one.points.values()}) < 2:
            continue
        found = _figures((table, free), metric, shown, piece)
        for place, (title, figure, caption) in enumerate(found):
            slug = f"{table.name}-{metric.name}" + f"-{place + 1}" * (place > 0)
            yield plot(figure, slug=slug, title=title, caption=caption)


def _figures(
    tables: tuple[Table, Table], metric: Metric, shown: Sequence[Series], piece: Slice | None
) -> Iterator[tuple[str, Figure, str]]:
    """Title, figure and caption, the one that shows most first.

    The tables are the suite's and that without the axes that follow from others.
    """
    (table, free), set_with = tables, implied(*tables)
    unit = table.scales[metric.name]
    lines = [one for one in series(piece.table, metric) if len(one.points) > 1] if piece else []
    surface = surfaces(free, metric)
    if 2 * max(len(lines), len(surface.values) if surface else 0) < len(shown):
        drawn, figure, how = _map_or_bars(table, metric, shown)
        yield metric.name, figure, _span(drawn, metric, unit) + how
    if piece and lines:
        figure, how = curves(piece, metric, lines)
        how += _whiskers(piece.table, lines) + " Dotted: peers." * any(x.is_peer for x in lines)
        how += set_with + _missing(shown, {one.label for one in lines})
        yield f"{metric.name} along {piece.axis}", figure, _span(lines, metric, unit) + how
    if surface:
        figure, how = draw_surfaces(surface, metric)
        how += set_with + _missing(shown, surface.values)
        drawn = [one for one in shown if one.label in surface.values]
        title = f"{metric.name} over {surface.down} and {surface.across}"
        yield title, figure, _span(drawn, metric, unit) + how


def _missing(shown: Sequence[Series], drawn: Collection[str]) -> str:
    names = [one.label for one in shown if one.label not in drawn]
    return f" Left out, measured too seldom: {several(names)}." if names else ""


def _map_or_bars(
    table: Table, metric: Metric, shown: Sequence[Series]
) -> tuple[Sequence[Series], Figure, str]:
    """A map where the settings are too many for colours and it is well filled, else bars.

    What is drawn comes first, the words on how to read it last.
    """
    counts = Counter(setting for one in shown for setting in one.points)
    if len(counts) > MAX_GROUPS and (found := contest(table, shown)) is not None:
        return (shown, *draw_contest(found, metric))
    common = counts.most_common(MAX_GROUPS)
    kept = {setting for setting, count in common if count >= _SHARED * common[0][1]}
    names = setting_names([row for row in table.rows if setting_text(row) in kept])
    drawn = [cut for one in shown if (cut := one.within(kept)).points]
    how = _whiskers(table, drawn)
    if any(one.is_peer for one in drawn):
        how += " Hatched or hollow: peers."
    if len(counts) > len(kept):
        how += f" {_told(table, kept)} of {len(counts)} settings with most techniques."
    return drawn, bars(table, metric, drawn, names), how + _gaps(drawn, names)


def _told(table: Table, kept: Collection[str]) -> str:
    if len(kept) > 1:
        return f"The {len(kept)}"
    row = next(row for row in table.rows if setting_text(row) in kept)
    axes = [axis for axis in row.axes if axis != REPEATS]
    words = [f"{axis} {axis_text(row.axes[axis]) or 'none'}" for axis in axes]
    return f"At {', '.join(words)}, the one"


def _span(shown: Sequence[Series], metric: Metric, scale: Scale) -> str:
    """The figure in a sentence."""
    ends = [pick(shown, key=lambda one: one.middle) for pick in (min, max)]
    texts = [
        f"{one.label} {Scale(1, scale.unit).text(Estimate(one.middle, None, None))} {scale.unit}"
        for one in ends
    ]
    direction = "" if metric.better == "neither" else f"; {metric.better} is better"
    start = "Medians from" if any(len(one.points) > 1 for one in shown) else "From"
    return f"{start} {texts[0].rstrip()} to {texts[1].rstrip()}{direction}."


def _whiskers(table: Table, shown: Sequence[Series]) -> str:
    if all(point.low is None for one in shown for point in one.points.values()):
        return ""
    return f" Whiskers: {'range over seeds' if REPEATS in table.axes else '95 % intervals'}."


def _gaps(shown: Sequence[Series], settings: Collection[str]) -> str:
    missing = [one.label for one in shown if not set(settings) <= set(one.points)]
    return f" Not measured in every setting: {several(missing)}." if missing else ""
