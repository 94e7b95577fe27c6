"""Quality against cost, drawn: which techniques no other beats on both."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report.axes import COLOURS, WIDTH, axis_label, canvas, number_axis, short
from harness.report.series import implied
from harness.report.svg import INK, Plot, plot, style
from harness.report.tables import Table
from harness.report.tradeoff import Point, Tradeoff, tradeoffs
from harness.report.words import several

_HEIGHT = 300
_LETTER, _LINE = 5.6, 12  # size of a point's label
_CORNERS = ((8, 9), (8, 0), (0, 11), (-8, -9), (-8, 0), (0, -11), (8, -9), (-8, 9))
_HIDDEN = 0.1  # share of a label that may lie on others before it is left away
Box = tuple[float, float, float, float]


def pareto(table: Table, tables: Sequence[Table]) -> list[Plot]:
    """Quality of this suite against time and against bytes, its own or of a suite beside it."""
    with style():
        return [
            plot(
                _scatter(found),
                slug=f"{table.name}-pareto" + "-size" * (place > 0),
                title=f"{found.up.metric.name} against {found.across.metric.name}",
                caption=_caption(found) + implied(table, found.up.table),
            )
            for place, found in enumerate(tradeoffs(table, tables))
        ]


def _caption(found: Tradeoff) -> str:
    """What the marks mean, and what is not there."""
    text = f"Not beaten on both: {several([point.label for point in found.best])}. Hollow: beaten."
    if any(point.is_peer for point in found.points):
        text += " Diamonds: peers."
    if found.knobs:
        text += f" Lines: what one technique offers over {' and '.join(found.knobs)}, named so."
    if found.pooled:
        text += f" Medians over {', '.join(found.pooled)}."
    if found.held:
        text += f" At {', '.join(found.held)}."
    if found.across.table.name != found.up.table.name:
        text += f" {found.across.metric.name} is from {found.across.table.suite.title}."
    for why, names in found.left_out.items():
        text += f" Left out, {why}: {several(names)}."
    return text


def _scatter(found: Tradeoff) -> Figure:
    figure, axes = canvas(_HEIGHT, left=56)
    number_axis(axes, "x", [point.x for point in found.points])
    number_axis(axes, "y", [point.y for point in found.points])
    axes.margins(0.1)
    for technique, colour in _colours(found).items():
        _draw(axes, [p for p in found.points if p.technique == technique], found, colour)
    line = sorted((point.x, point.y) for point in found.best)
    axes.plot(*zip(*line, strict=True), color=INK, linewidth=1, alpha=0.5)
    axes.set_xlabel(axis_label(found.across.metric, found.across.scale))
    title = axis_label(found.up.metric, found.up.scale, "y")
    axes.set_title(title, loc="left", fontsize=11)
    same = found.across.metric.better == found.up.metric.better
    side = 1 if same else -1  # the front falls or rises to the right
    _name(axes, found, [(dx, dy * side) for dx, dy in _CORNERS])
    return figure


def _draw(axes: Axes, own: Sequence[Point], found: Tradeoff, colour: str) -> None:
    """One technique: its points, and a line through those that it has no better ones for."""
    line = sorted((point.x, point.y) for point in found.front(own))
    axes.plot(*zip(*line, strict=True), color=colour, linewidth=0.8, alpha=0.5)
    for point in own:
        wins = point in found.best
        axes.plot(
            [point.x], [point.y], "D" if point.is_peer else "o", markersize=6 if wins else 5,
            color=colour, markerfacecolor=colour if wins else "none",
        )  # fmt: skip


def _colours(found: Tradeoff) -> dict[str, str]:
    """One for all, or by technique where each has several points."""
    techniques = dict.fromkeys(point.technique for point in found.points)
    return {
        technique: COLOURS[place % len(COLOURS) if found.knobs else 0]
        for place, technique in enumerate(techniques)
    }


def _name(axes: Axes, found: Tradeoff, corners: Sequence[tuple[int, int]]) -> None:
    """Each label at the first corner of its point that covers least, the unbeaten first.

    A label that would hide others is left away: the caption and the table have every name.
    """
    axes.autoscale_view()
    places = axes.transData.transform([(point.x, point.y) for point in found.points]).tolist()
    at = dict(zip(found.points, places, strict=True))
    taken: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in places]
    left, right = (axes.transAxes.transform((side, 0))[0] for side in (0, 1))
    outside: list[Box] = [(left - 1e4, -1e4, left, 1e4), (right, -1e4, right + 1e4, 1e4)]
    for point, text in _labels(found).items():
        boxes = {corner: _box(at[point], corner, text) for corner in corners}
        hidden = {c: sum(_overlap(box, o) for o in taken + outside) for c, box in boxes.items()}
        corner = min(corners, key=hidden.__getitem__)
        if hidden[corner] > _HIDDEN * _area(boxes[corner]):
            continue
        taken.append(boxes[corner])
        axes.annotate(
            text, (point.x, point.y), corner, textcoords="offset pixels", color=INK,
            ha=_side(corner[0]), va="center", fontsize=10, alpha=1 if point in found.best else 0.7,
        )  # fmt: skip


def _labels(found: Tradeoff) -> dict[Point, str]:
    """The unbeaten points, then every technique that has none of them once."""
    best = found.best
    beaten = {point.technique: point for point in reversed(found.points)}
    for point in best:
        beaten.pop(point.technique, None)
    texts = {point: point.label for point in best}
    texts |= {point: technique for technique, point in reversed(beaten.items())}
    return {point: short(text, WIDTH / 3) for point, text in texts.items()}


def _side(dx: int) -> str:
    return "center" if dx == 0 else "left" if dx > 0 else "right"


def _box(at: Sequence[float], corner: tuple[int, int], text: str) -> Box:
    width = _LETTER * len(text)
    x = at[0] + corner[0] - {"left": 0, "center": width / 2, "right": width}[_side(corner[0])]
    y = at[1] + corner[1] - _LINE / 2
    return x, y, x + width, y + _LINE


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0
