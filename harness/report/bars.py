"""Ranked bars: one per technique and setting, with its interval."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.card import Metric
from harness.report.axes import COLOURS, LETTER, WIDTH, axis_label, canvas, number_axis, short
from harness.report.series import Series
from harness.report.svg import INK
from harness.report.tables import Table
from harness.statistics import Estimate

MAX_GROUPS = len(COLOURS)  # settings told apart by colour
CLOSE = 1.5  # largest over smallest bound up to which zero is left off the axis
_KEY = 60  # width of a legend's colour and gaps
_LETTERS = 24  # of a setting's name


def bars(
    table: Table, metric: Metric, shown: Sequence[Series], settings: Mapping[str, str]
) -> Figure:
    """Horizontal bars or dots, best on top; one colour per setting, under the name it is given."""
    ranked = sorted(shown, key=lambda one: one.middle, reverse=metric.better != "lower")
    pitch = 20 if len(settings) == 1 else 9 * len(settings) + 8
    thick = 0.6 if len(settings) == 1 else 9 / pitch
    labels = [short(one.label) for one in ranked]
    keys = {setting: short(name, _LETTERS * LETTER) for setting, name in settings.items()}
    n_lines = sum(len(name) * LETTER + _KEY for name in keys.values()) // WIDTH + 1
    figure, axes = canvas(
        len(ranked) * pitch,
        left=16 + LETTER * max(map(len, labels)),
        top=6 + 18 * n_lines if len(settings) > 1 else 6,
    )
    drawn = {setting: [one.points.get(setting) for one in ranked] for setting in settings}
    dots = _scale(axes, [estimate for column in drawn.values() for estimate in column if estimate])
    for index, (setting, column) in enumerate(drawn.items()):
        offset = (index - (len(settings) - 1) / 2) * thick
        for place, (one, estimate) in enumerate(zip(ranked, column, strict=True)):
            if estimate is not None:
                _bar(axes, (place + offset, thick), estimate, (COLOURS[index], one.is_peer, dots))
        if len(settings) > 1:
            axes.plot([], [], color=COLOURS[index], linewidth=6, label=keys[setting])
    axes.set_yticks(range(len(ranked)), labels)
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(axis_label(metric, table.scales[metric.name]))
    if len(settings) > 1:
        n_columns = -(-len(settings) // int(n_lines))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=n_columns, borderpad=0)
    return figure


def _scale(axes: Axes, estimates: Sequence[Estimate]) -> bool:
    """Set the axis of numbers; says whether zero is not on it."""
    bounds = [bound for estimate in estimates for bound in estimate if bound is not None]
    log = number_axis(axes, "x", bounds)
    return log or 0 < max(bounds) < CLOSE * min(bounds)


def _bar(
    axes: Axes, place: tuple[float, float], estimate: Estimate, look: tuple[str, bool, bool]
) -> None:
    """A bar from zero, or a dot where the axis does not show zero."""
    (y, thick), (colour, hollow, dot) = place, look
    if dot:
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
