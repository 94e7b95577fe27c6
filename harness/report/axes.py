"""The drawing area all figures share: margins, number axes, colours.

Sizes are in units of 1/72 inch, which are the units of the SVG.
"""

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from harness.card import Metric
from harness.report.quantities import Scale, digits

COLOURS = ("#3f83c8", "#c9751f", "#3c9d76", "#a76bc0")  # 3:1 on both white and near-black
LETTER = 6.4  # mean width of a label's letter
WIDTH = 540
MOST_BESIDE = 0.45 * WIDTH  # of a margin, whatever stands in it
WIDE = 50  # largest over smallest value from which an axis of numbers is logarithmic
_BOTTOM = 44
_DECADES = 1e3  # spanned by a logarithmic axis before its ticks are powers of ten alone


def canvas(
    height: float, *, left: float, right: float = 12, top: float = 24, bottom: float = _BOTTOM
) -> tuple[Figure, Axes]:
    """A figure whose plotting area is `height` tall, inside margins."""
    total = height + top + bottom
    left, right = min(left, MOST_BESIDE), min(right, MOST_BESIDE)
    figure = Figure(figsize=(WIDTH / 72, total / 72), dpi=72)
    axes = figure.add_axes(
        (left / WIDTH, bottom / total, 1 - (left + right) / WIDTH, height / total)
    )
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    return figure, axes


def short(text: str, width: float = MOST_BESIDE - 16) -> str:
    """The text on one line, cut in its middle where it is wider: its ends tell it from others."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    most = max(3, int(width / LETTER))
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[head + 1 - most :]}"


def axis_label(metric: Metric, scale: Scale, which: Literal["x", "y"] = "x") -> str:
    """Name, unit, and an arrow towards better."""
    unit = f" ({scale.unit})" if scale.unit else ""
    arrows = {"lower": "←", "higher": "→"} if which == "x" else {"lower": "↓", "higher": "↑"}
    side = "" if metric.better == "neither" else f"   {arrows[metric.better]} better"
    return f"{metric.name}{unit}{side}"


def number_axis(
    axes: Axes, which: Literal["x", "y"], values: Sequence[float], wide: float = WIDE
) -> bool:
    """Plain numbers on the axis, logarithmic where they span `wide` or more; says if it is."""
    log = min(values) > 0 and max(values) / min(values) >= wide
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log" if log else "linear")
    subs = (1.0,) if log and max(values) / min(values) > _DECADES else (1.0, 2.0, 5.0)
    axis.set_major_locator(
        LogLocator(subs=subs, numticks=6) if log else MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
    )
    axis.set_major_formatter(FuncFormatter(lambda value, _: digits(value, 6)))
    axis.set_minor_formatter(NullFormatter())
    axis.grid(visible=True)
    return log
