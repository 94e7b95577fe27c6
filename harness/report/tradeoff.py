"""What quality costs: points to draw, and who is left out of the picture."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import TypeVar

from harness.card import Direction, Kind, Metric
from harness.report.quantities import Scale
from harness.report.series import REPEATS, essential, is_numeric, label
from harness.report.tables import Row, Table, axis_text, canonical

_GOODNESS: tuple[Kind, ...] = ("quality", "error", "count")
_SIZES = {"B", "byte", "bytes", "bit", "bits"}
_Key = TypeVar("_Key")
_MOST = 0.75  # of the techniques, that must trade along an axis
_SHARED = 0.75  # of the points in the commonest setting, for a setting to be asked of all


@dataclass(frozen=True, slots=True)
class Point:
    """One technique, at one value of what it trades quality with: in the units of its columns."""

    technique: str  # with its options
    at: str  # the values it was traded at; empty if there is nothing to trade with
    is_peer: bool
    x: float
    y: float

    @property
    def label(self) -> str:
        """What it is called beside the point."""
        return f"{self.technique} {self.at}".rstrip()


@dataclass(frozen=True, slots=True)
class Side:
    """One axis of the figure: a metric and the table that it is from."""

    table: Table
    metric: Metric

    @property
    def scale(self) -> Scale:
        """The unit of the axis."""
        return self.table.scales[self.metric.name]

    def value(self, row: Row) -> float | None:
        """The row's place on the axis."""
        entry = row.entries.get(self.metric.name)
        return None if entry is None else entry.estimate.value / self.scale.factor


@dataclass(frozen=True)
class Tradeoff:
    """Quality against cost."""

    up: Side
    across: Side
    points: tuple[Point, ...]
    knobs: tuple[str, ...]  # axes along which quality is bought
    pooled: tuple[str, ...]  # axes over which the points are medians
    held: tuple[str, ...]  # of several settings the one they are of
    left_out: dict[str, list[str]]  # why -> techniques

    @cached_property
    def best(self) -> list[Point]:
        """The points that no other is better than on both axes."""
        return self.front(self.points)

    def front(self, points: Sequence[Point]) -> list[Point]:
        """Those of the points that no other of them is better than on both axes."""
        return front(points, self.across.metric.better, self.up.metric.better)


def tradeoffs(table: Table, tables: Sequence[Table]) -> Iterator[Tradeoff]:
    """This suite's first telling quality against a time and against a size, where measured.

    A suite without such a cost takes that of the first suite that shares its cells.
    """
    table = essential(table)
    for is_cost in (_is_time, _is_size):
        found = (
            one
            for other in [table, *(t for t in tables if t.name != table.name)]
            for cost in _sides(other, is_cost)
            for quality in _sides(table, _is_quality)
            if (one := _tradeoff(quality, cost)) is not None
        )
        if (first := next(found, None)) is not None:
            yield first


def front(points: Sequence[Point], x_better: Direction, y_better: Direction) -> list[Point]:
    """The points no other is at least as good as on both axes and better on one."""
    x_sign, y_sign = _sign(x_better), _sign(y_better)
    keys = [(x_sign * point.x, y_sign * point.y) for point in points]
    return [
        point
        for point, (x, y) in zip(points, keys, strict=True)
        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in keys)
    ]


def _is_time(metric: Metric) -> bool:
    return metric.kind == "timing" and metric.unit != "1"


def _is_size(metric: Metric) -> bool:
    counts_bytes = metric.kind == "count" and metric.unit.split("/")[0] in _SIZES
    return metric.kind == "memory" or counts_bytes


def _is_quality(metric: Metric) -> bool:
    return metric.kind in _GOODNESS and not _is_size(metric)


def _sides(table: Table, holds: Callable[[Metric], bool]) -> Iterator[Side]:
    for metric in table.metrics:
        if metric.better != "neither" and holds(metric):
            yield Side(table, metric)


def _sign(better: Direction) -> int:
    return 1 if better == "higher" else -1


@dataclass(frozen=True, slots=True)
class _Pair:
    """A cell of which both are known."""

    row: Row
    x: float
    y: float

    def over(self, axes: Iterable[str]) -> tuple[str, ...]:
        """Where the cell lies on these axes."""
        return tuple(axis_text(self.row.axes[axis]) or "none" for axis in axes)


def _tradeoff(up: Side, across: Side) -> Tradeoff | None:
    pairs = _pairs(up, across)
    knobs = [axis for axis in up.table.axes if _is_traded(pairs, axis, up, across)]
    rest = [axis for axis in up.table.axes if axis not in knobs]
    asked = _asked(pairs, knobs, rest)
    points = _points(pairs, knobs, rest, asked)
    if min(len({point.x for point in points}), len({point.y for point in points})) < 2:
        return None
    values = {axis: {setting[place] for setting in asked} for place, axis in enumerate(rest)}
    return Tradeoff(
        up=up, across=across, points=tuple(points), knobs=tuple(knobs),
        pooled=tuple(axis for axis in rest if len(values[axis]) > 1),
        held=tuple(f"{axis} {next(iter(values[axis]))}" for axis in rest if len(values[axis]) == 1),
        left_out=_left_out(up, across, pairs, {point.technique for point in points}),
    )  # fmt: skip


def _pairs(up: Side, across: Side) -> list[_Pair]:
    """Cells with their quality and the median cost of those they share technique and axes with."""
    common = set(up.table.setting_keys) & set(across.table.setting_keys)
    costs: dict[str, list[float]] = defaultdict(list)
    for row in across.table.rows:
        if (cost := across.value(row)) is not None:
            costs[_join_key(row, common)].append(cost)
    return [
        _Pair(row, median(costs[key]), quality)
        for row in up.table.rows
        if (key := _join_key(row, common)) in costs and (quality := up.value(row)) is not None
    ]


def _join_key(row: Row, common: Iterable[str]) -> str:
    record = row.record
    axes = {key: record.setting.get(key, record.options.get(key)) for key in common}
    return canonical([record.technique, record.options, record.device, axes])


def _is_traded(pairs: Sequence[_Pair], axis: str, up: Side, across: Side) -> bool:
    """Whether along the axis most techniques give quality for cost."""
    if axis == REPEATS or not is_numeric(up.table, axis):
        return False
    trades = []
    for members in _grouped(pairs, lambda pair: label(pair.row)).values():
        places = sorted({pair.row.axes[axis] for pair in members} - {None})
        if len(places) > 1:
            ends = [
                [p for p in members if p.row.axes[axis] == end] for end in (places[0], places[-1])
            ]
            dearer, better = (_change(ends, key) for key in (lambda p: p.x, lambda p: p.y))
            signs = _sign(across.metric.better) * _sign(up.metric.better)
            trades.append(signs * dearer * better < 0)
    return bool(trades) and sum(trades) >= _MOST * len(trades)


def _change(ends: Sequence[Sequence[_Pair]], key: Callable[[_Pair], float]) -> float:
    first, last = (median(map(key, end)) for end in ends)
    return last - first


def _asked(
    pairs: Sequence[_Pair], knobs: Sequence[str], rest: Sequence[str]
) -> set[tuple[str, ...]]:
    """The settings asked of every point: all in which most were measured."""
    counts = Counter(
        setting for setting, _, _ in {(p.over(rest), label(p.row), p.over(knobs)) for p in pairs}
    )
    most = max(counts.values(), default=0)
    return {setting for setting, count in counts.items() if count >= _SHARED * most}


def _points(
    pairs: Sequence[_Pair],
    knobs: Sequence[str],
    rest: Sequence[str],
    asked: Collection[tuple[str, ...]],
) -> list[Point]:
    """One for each technique and values of the knobs that was measured in all asked settings."""
    inside = [pair for pair in pairs if pair.over(rest) in asked]
    groups = _grouped(inside, lambda pair: (label(pair.row), pair.over(knobs)))
    return [
        Point(
            technique=technique,
            at=", ".join(at),
            is_peer=members[0].row.is_peer,
            x=median(pair.x for pair in members),
            y=median(pair.y for pair in members),
        )
        for (technique, at), members in groups.items()
        if {pair.over(rest) for pair in members} == set(asked)
    ]


def _grouped(pairs: Iterable[_Pair], key: Callable[[_Pair], _Key]) -> dict[_Key, list[_Pair]]:
    found: dict[_Key, list[_Pair]] = defaultdict(list)
    for pair in pairs:
        found[key(pair)].append(pair)
    return found


def _left_out(
    up: Side, across: Side, pairs: Sequence[_Pair], drawn: Collection[str]
) -> dict[str, list[str]]:
    """Why -> the techniques without a point."""
    paired = {label(pair.row) for pair in pairs}
    good = {label(row) for row in up.table.rows if up.value(row) is not None}
    reasons: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(label(row) for row in up.table.rows):
        if name not in good:
            reasons[f"no {up.metric.name}"].append(name)
        elif name not in paired:
            reasons[f"no {across.metric.name}"].append(name)
        elif name not in drawn:
            reasons["not in every setting"].append(name)
    return reasons
