"""Quality against cost: which techniques no other beats on both."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.card import Kind, Metric
from harness.report.axes import COLOURS, axis_label, canvas, number_axis
from harness.report.series import label
from harness.report.svg import INK, Plot, plot, style
from harness.report.tables import Row, Table, canonical

_HEIGHT = 300
_LETTER, _LINE = 5.6, 12  # size of a point's label
_CORNERS = ((8, 9), (8, 0), (0, 11), (-8, -9), (-8, 0), (0, -11), (8, -9), (-8, 9))
_GOODNESS: tuple[Kind, ...] = ("quality", "error", "count")
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Point:
    """One technique: cost and quality in the units of their columns."""

    label: str
    is_peer: bool
    x: float
    y: float


def pareto(table: Table, tables: Sequence[Table]) -> Plot | None:
    """Quality of this suite against time, its own or else of the first suite that shares cells.

    A technique is drawn where both were measured in every setting; several settings are
    summed up by medians.
    """
    quality = next((m for m in table.metrics if m.kind in _GOODNESS and _counts(table, m)), None)
    if quality is None:
        return None
    for other in [table, *(t for t in tables if t is not table)]:
        cost = next((m for m in other.metrics if m.kind == "timing" and _counts(other, m)), None)
        if cost is not None and len(points := _points(table, quality, other, cost)) >= 2:
            return _plot((table, quality), (other, cost), points)
    return None


def front(points: Sequence[Point], *, x_better: str, y_better: str) -> list[Point]:
    """The points no other is at least as good as on both axes and better on one."""
    x_sign, y_sign = (1 if better == "higher" else -1 for better in (x_better, y_better))
    keys = [(x_sign * point.x, y_sign * point.y) for point in points]
    return [
        point
        for point, (x, y) in zip(points, keys, strict=True)
        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in keys)
    ]


def _counts(table: Table, metric: Metric) -> bool:
    measured = any(metric.name in row.entries for row in table.rows)
    return metric.better != "neither" and measured


def _points(table: Table, quality: Metric, other: Table, cost: Metric) -> list[Point]:
    common = set(table.setting_keys) & set(other.setting_keys)
    costs: dict[str, list[float]] = defaultdict(list)
    for row in other.rows:
        if cost.name in row.entries:
            value = row.entries[cost.name].estimate.value
            costs[_join_key(row, common)].append(value / other.scales[cost.name].factor)
    found: dict[str, list[tuple[Row, float, float]]] = defaultdict(list)
    for row in table.rows:
        if quality.name in row.entries and (key := _join_key(row, common)) in costs:
            value = row.entries[quality.name].estimate.value / table.scales[quality.name].factor
            found[label(row)].append((row, median(costs[key]), value))
    complete = max((len(joined) for joined in found.values()), default=0)
    return [
        Point(
            label=name,
            is_peer=joined[0][0].is_peer,
            x=median(x for _, x, _ in joined),
            y=median(y for _, _, y in joined),
        )
        for name, joined in found.items()
        if len(joined) == complete
    ]


def _join_key(row: Row, common: Iterable[str]) -> str:
    record = row.record
    axes = {key: record.setting.get(key) for key in common}
    return canonical([record.technique, record.options, record.device, axes])


def _plot(up: tuple[Table, Metric], across: tuple[Table, Metric], points: Sequence[Point]) -> Plot:
    (table, quality), (other, cost) = up, across
    best = front(points, x_better=cost.better, y_better=quality.better)
    with style():
        figure = _scatter(points, best, up, across)
        source = "" if other is table else f" Time is from {other.suite.title}."
        return plot(
            figure,
            slug=f"{table.name}-pareto",
            title=f"{quality.name} against {cost.name}",
            caption=f"Not beaten on both: {', '.join(point.label for point in best)}."
            f" Hollow: beaten. Diamonds: peers. Medians over settings.{source}",
        )


def _scatter(
    points: Sequence[Point],
    best: Sequence[Point],
    up: tuple[Table, Metric],
    across: tuple[Table, Metric],
) -> Figure:
    (table, quality), (other, cost) = up, across
    figure, axes = canvas(_HEIGHT, left=56)
    number_axis(axes, "x", [point.x for point in points])
    number_axis(axes, "y", [point.y for point in points])
    axes.margins(0.1)
    for point in points:
        axes.plot(
            [point.x], [point.y], "D" if point.is_peer else "o", markersize=6,
            color=COLOURS[0], markerfacecolor=COLOURS[0] if point in best else "none",
        )  # fmt: skip
    line = sorted((point.x, point.y) for point in best)
    axes.plot(*zip(*line, strict=True), color=COLOURS[0], linewidth=1, alpha=0.6)
    axes.set_xlabel(axis_label(cost, other.scales[cost.name]))
    title = axis_label(quality, table.scales[quality.name], "y")
    axes.set_title(title, loc="left", fontsize=11)
    side = 1 if cost.better == quality.better else -1  # the front falls or rises to the right
    _name(axes, points, best, [(dx, dy * side) for dx, dy in _CORNERS])
    return figure


def _name(
    axes: Axes, points: Sequence[Point], best: Sequence[Point], corners: Sequence[tuple[int, int]]
) -> None:
    """Each label at the first corner of its point that covers least, the unbeaten first."""
    axes.autoscale_view()
    places = axes.transData.transform([(point.x, point.y) for point in points]).tolist()
    at = {point: (x, y) for point, (x, y) in zip(points, places, strict=True)}
    taken: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in at.values()]
    left, right = (axes.transAxes.transform((side, 0))[0] for side in (0, 1))
    outside: list[Box] = [(left - 1e4, -1e4, left, 1e4), (right, -1e4, right + 1e4, 1e4)]
    for point in sorted(points, key=lambda one: one not in best):
        boxes = {corner: _box(at[point], corner, point.label) for corner in corners}
        dx, dy = min(boxes, key=lambda c: sum(_overlap(boxes[c], b) for b in taken + outside))
        taken.append(boxes[dx, dy])
        axes.annotate(
            point.label, (point.x, point.y), (dx, dy), textcoords="offset pixels", color=INK,
            ha=_side(dx), va="center", fontsize=10, alpha=1 if point in best else 0.7,
        )  # fmt: skip


def _side(dx: int) -> str:
    return "center" if dx == 0 else "left" if dx > 0 else "right"


def _box(at: tuple[float, float], corner: tuple[int, int], text: str) -> Box:
    width = _LETTER * len(text)
    x = at[0] + corner[0] - {"left": 0, "center": width / 2, "right": width}[_side(corner[0])]
    y = at[1] + corner[1] - _LINE / 2
    return x, y, x + width, y + _LINE


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0
