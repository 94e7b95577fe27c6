"""One wide table per suite: who was best in each setting, and how far from the baseline."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from harness.card import Metric, Suite
from harness.record import Quantity, Record
from harness.report.quantities import Scale, scale
from harness.statistics import Estimate
from harness.statistics import ratio as ratio_of
from harness.verdict import Rule, judge

Mark = Literal["", "best", "tied"]  # tied: not the best, but the intervals overlap
SettingKey = str  # canonical JSON of the setting and device
_RULE = Rule(resamples=500)  # an interval to look at: thousands of cells in seconds


@dataclass(frozen=True, slots=True)
class Entry:
    """One metric of one cell, beside its rivals of the same setting."""

    quantity: Quantity
    estimate: Estimate
    mark: Mark = ""
    ratio: Estimate | None = None  # to the baseline; None where it has none
    baseline: float | None = None

    @property
    def advantage(self) -> Literal["", "better", "worse"]:
        """Which side of the baseline the ratio's interval lies on; empty if it spans 1."""
        if self.ratio is None or self.quantity.better == "neither":
            return ""
        value, low, high = self.ratio
        low, high = (value if low is None else low), (value if high is None else high)
        if low <= 1 <= high:
            return ""
        return "better" if (low > 1) == (self.quantity.better == "higher") else "worse"


@dataclass(frozen=True, slots=True)
class Row:
    """One cell of the table."""

    record: Record
    name: str  # the shortest ending of the technique's name that is its own in this table
    axes: Mapping[str, Any]  # the varying axes only, options that most techniques vary among them
    options: Mapping[str, Any]  # the other fields that vary within this technique
    group: SettingKey
    is_baseline: bool
    entries: Mapping[str, Entry] = field(default_factory=dict)

    @property
    def is_peer(self) -> bool:
        """Whether the technique is a canonical library in our interface."""
        return "/peers/" in self.record.technique


@dataclass(frozen=True, slots=True)
class Table:
    """A suite's cells, sorted by setting and then as recorded."""

    name: str
    suite: Suite
    metrics: tuple[Metric, ...]
    scales: Mapping[str, Scale]
    axes: tuple[str, ...]  # that vary
    fixed: Mapping[str, Any]  # axes with one value in all cells
    rows: tuple[Row, ...]

    @property
    def setting_keys(self) -> tuple[str, ...]:
        """All axes of the suite, varying or not, without the device."""
        return tuple(axis for axis in (*self.axes, *self.fixed) if axis != "device")

    @property
    def stated(self) -> dict[str, Any]:
        """The fixed axes that were given a value."""
        return {axis: value for axis, value in self.fixed.items() if value not in (None, "")}

    @property
    def has_options(self) -> bool:
        """Whether some technique ran with several values of its own fields."""
        return any(row.options for row in self.rows)


def build(name: str, records: Sequence[Record], suite: Suite | None) -> Table:
    """The table of one suite's records; without a header, metrics come from the records."""
    suite = suite or Suite(title=name, question="", families=(), baseline="", metrics=())
    metrics = _metrics(records, suite)
    axes, fixed = _split_axes(records)
    options = _varying_options(records)
    names = _short_names({record.technique for record in records})
    shared = _shared(options, len(names), known={*axes, *fixed})
    rows = []
    for record in records:
        setting, both = _axes(record), {key: record.options.get(key) for key in shared}
        own = [k for k in options[record.technique] if k in record.options and k not in shared]
        rows.append(
            Row(
                record=record,
                name=names[record.technique],
                axes={axis: (setting | both).get(axis) for axis in (*axes, *shared)},
                options={key: record.options[key] for key in own},
                # One technique's options are rivals; several meet at the same values of them.
                group=canonical(setting | both if len(names) > 1 else setting),
                is_baseline=record.technique == suite.baseline,
            )
        )
    rows.sort(key=lambda row: [order(value) for value in row.axes.values()])
    return Table(
        name=name,
        suite=suite,
        metrics=metrics,
        scales={m.name: scale(m.unit, _values(records, m.name)) for m in metrics},
        axes=(*axes, *shared),
        fixed=fixed,
        rows=tuple(_judged(rows, metrics)),
    )


def axis_text(value: Any) -> str:
    """An axis or option value: text as it is, numbers with separators, the rest as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def order(value: Any) -> tuple[int, float, str]:
    """Sorts numbers by size, then everything else as text, nothing last."""
    if isinstance(value, int | float):
        return (0, value, "")
    return (2, 0, "") if value is None else (1, 0, axis_text(value))


def _metrics(records: Sequence[Record], suite: Suite) -> tuple[Metric, ...]:
    """The suite's metrics with a value in its order, then those only records know."""
    known = {metric.name: metric for metric in suite.metrics}
    for record in records:
        for name, q in record.metrics.items():
            known.setdefault(name, Metric(name=name, unit=q.unit, better=q.better, kind=q.kind))
    return tuple(metric for metric in known.values() if _values(records, metric.name))


def _axes(record: Record) -> dict[str, Any]:
    return {**record.setting, "device": record.device}


def _split_axes(records: Sequence[Record]) -> tuple[tuple[str, ...], dict[str, Any]]:
    seen: dict[str, dict[str, Any]] = defaultdict(dict)
    for record in records:
        for axis, value in _axes(record).items():
            seen[axis][canonical(value)] = value
    everywhere = {axis for axis in seen if all(axis in _axes(record) for record in records)}
    fixed = {a: next(iter(v.values())) for a, v in seen.items() if len(v) == 1 and a in everywhere}
    return tuple(axis for axis in seen if axis not in fixed), fixed


def _short_names(techniques: Collection[str]) -> dict[str, str]:
    """The shortest ending of each name that no other name has."""
    names = {}
    for technique in techniques:
        parts = technique.split("/")
        endings = ["/".join(parts[-depth:]) for depth in range(1, len(parts) + 1)]
        names[technique] = next(
            ending
            for ending in endings
            if sum(f"/{other}".endswith(f"/{ending}") for other in techniques) == 1
            or ending == technique
        )
    return names


def _varying_options(records: Sequence[Record]) -> dict[str, list[str]]:
    """The fields with several values, but for those that an axis gave: it has a column."""
    seen: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for record in records:
        for key, value in record.options.items():
            if key not in record.setting or record.setting[key] != value:
                seen[record.technique][key].add(canonical(value))
    return defaultdict(
        list, {t: [k for k, v in keys.items() if len(v) > 1] for t, keys in seen.items()}
    )


def _shared(
    options: Mapping[str, Sequence[str]], n_techniques: int, known: Collection[str]
) -> list[str]:
    """The options that most techniques vary: axes, as a suite's own are."""
    users = Counter(key for keys in options.values() for key in keys if key not in known)
    return [key for key, count in users.items() if 2 * count > n_techniques]


def _judged(rows: Sequence[Row], metrics: Sequence[Metric]) -> list[Row]:
    """The rows with their entries: marks and ratios within each setting."""
    groups: dict[SettingKey, list[Row]] = defaultdict(list)
    baselines: dict[SettingKey, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
        if row.is_baseline:
            baselines[canonical(_axes(row.record))].append(row)
    entries: dict[str, dict[str, Entry]] = defaultdict(dict)
    for members in groups.values():
        baseline = _baseline(members, baselines[canonical(_axes(members[0].record))])
        for metric in metrics:
            for row, entry in _compare(members, baseline, metric):
                entries[row.record.cell_id][metric.name] = entry
    return [replace(row, entries=entries[row.record.cell_id]) for row in rows]


def _baseline(members: Sequence[Row], beside: Sequence[Row]) -> Row | None:
    """That of the setting; or the only one there is, whatever options the others vary."""
    inside = [row for row in members if row.is_baseline]
    found = inside or (beside if len(beside) == 1 else [])
    return found[0] if found else None


def _compare(
    members: Sequence[Row], baseline: Row | None, metric: Metric
) -> Iterator[tuple[Row, Entry]]:
    known = [(row, *found) for row in members if (found := _known(row, metric.name))]
    best = _best([estimate for _, _, estimate in known], metric.better)
    base = _known(baseline, metric.name) if baseline else None
    for row, q, estimate in known:
        mark = _mark(estimate, best)
        if baseline and base and row is not baseline:
            ratio = _ratio((row, q), (baseline, base[0]))
            yield row, Entry(q, estimate, mark, ratio, base[1].value)
        else:
            yield row, Entry(q, estimate, mark)


def _known(row: Row, metric: str) -> tuple[Quantity, Estimate] | None:
    """The metric where the cell has a value for it."""
    q = row.record.metrics.get(metric) if row.record.outcome == "ok" else None
    return None if q is None or q.value is None else (q, Estimate(q.value, q.low, q.high))


def _best(estimates: Sequence[Estimate], better: str) -> Estimate | None:
    """The extreme one; None without a direction or without a rival."""
    if better == "neither" or len(estimates) < 2:
        return None
    return (max if better == "higher" else min)(estimates, key=lambda e: e.value)


def _mark(estimate: Estimate, best: Estimate | None) -> Mark:
    if best is None:
        return ""
    if estimate.value == best.value:
        return "best"
    if None in estimate or None in best:
        return ""
    return "tied" if estimate[1] <= best[2] and best[1] <= estimate[2] else ""  # type: ignore[operator]


def _ratio(measured: tuple[Row, Quantity], baseline: tuple[Row, Quantity]) -> Estimate | None:
    """Of positive quantities only: the ratio of others does not say which is better.

    Times whose rounds were taken in turns are compared as a verdict would, by low quantiles.
    """
    (row, q), (base_row, base) = measured, baseline
    if any(value is None or value <= 0 for value in (q.value, base.value)):
        return None
    relay = row.record.relay
    if q.kind == "timing" and relay and relay == base_row.record.relay:
        change = judge(base, q, _RULE, paired=True)
        if change.effect == "ratio":
            return Estimate(change.value, change.low, change.high)
    return ratio_of(_samples(q), _samples(base), q.average)


def _samples(quantity: Quantity) -> list[float]:
    return quantity.samples or ([] if quantity.value is None else [quantity.value])


def _values(records: Sequence[Record], metric: str) -> list[float]:
    quantities = (record.metrics.get(metric) for record in records)
    return [q.value for q in quantities if q is not None and q.value is not None]


def canonical(value: Any) -> str:
    """JSON that is equal for equal values."""
    return json.dumps(value, sort_keys=True)
