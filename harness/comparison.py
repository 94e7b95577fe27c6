"""Two runs side by side: every metric of every cell that both have, with its verdict."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from scipy.stats import false_discovery_control

from harness.caveats import caveats, same_machine
from harness.matching import match
from harness.record import Quantity, Record
from harness.sequential import Looks
from harness.statistics import Estimate, summarise
from harness.verdict import Change, Rule, Verdict, judge, unjudged

_WORST_FIRST: tuple[Verdict, ...] = ("regressed", "unresolved", "improved", "equivalent")
_MACHINE_BOUND = ("timing", "memory")


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """One metric of one cell in both runs."""

    metric: str
    baseline: Record
    candidate: Record
    change: Change

    @property
    def quantity(self) -> Quantity:
        """The candidate's, for unit, direction and kind."""
        return self.candidate.metrics[self.metric]

    @property
    def slowdown(self) -> float:
        """Log of how many times worse the candidate is; 0 where no ratio or direction tells."""
        if self.change.effect == "difference" or self.quantity.better == "neither":
            return 0.0
        sign = 1 if self.quantity.better == "lower" else -1
        return sign * math.log(self.change.value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Verdicts first, then what could not be compared."""

    baseline: str  # names of the runs or revisions
    candidate: str
    rule: Rule
    rows: tuple[Compared, ...]  # worst first
    only_baseline: tuple[Record, ...]  # cells of one side alone
    only_candidate: tuple[Record, ...]
    broken: tuple[tuple[Record, Record], ...]  # ok in the baseline, not in the candidate
    warnings: tuple[str, ...]  # one-sided changes, other machines, not interleaved, ...
    overall: Estimate | None  # geometric mean of the timing ratios (above 1: the candidate slower)
    mended: tuple[tuple[Record, Record], ...] = ()  # ok in the candidate, not in the baseline


def compare(
    baseline: Sequence[Record],
    candidate: Sequence[Record],
    rule: Rule | None = None,
    *,
    looks: Looks | None = None,
) -> Comparison:
    """Judge every metric of the cells that both runs measured.

    A metric without a better direction is judged only if it is a count or an error. With `looks`,
    intervals are those of a measurement that was looked at so often.

    Raises:
        UsageError: if cells of one run have several counterparts in the other.
    """
    rule, cells = rule or Rule(), match(baseline, candidate)
    ok = [(x, y) for x, y in cells.pairs if x.outcome == y.outcome == "ok"]
    rows = _discoveries([row for pair in ok for row in _rows(*pair, rule, looks)], rule)
    changes = [
        (row.candidate.cell_id, 1 if row.change.verdict == "regressed" else -1)
        for row in rows
        if row.change.verdict in ("regressed", "improved") and row.quantity.kind in _MACHINE_BOUND
    ]
    return Comparison(
        baseline=_name(baseline),
        candidate=_name(candidate),
        rule=rule,
        rows=tuple(sorted(rows, key=_badness)),
        only_baseline=cells.only_baseline,
        only_candidate=cells.only_candidate,
        broken=tuple((x, y) for x, y in cells.pairs if x.outcome == "ok" != y.outcome),
        warnings=(*_widened(rows, rule), *caveats(ok, changes), *_valueless(ok)),
        overall=_overall(rows),
        mended=tuple((x, y) for x, y in cells.pairs if x.outcome != "ok" == y.outcome),
    )


def _rows(
    baseline: Record, candidate: Record, rule: Rule, looks: Looks | None
) -> Iterable[Compared]:
    for name, before in baseline.metrics.items():
        after = candidate.metrics.get(name)
        if after is None or before.value is None or after.value is None:
            continue
        if before.better != "neither" or before.kind in ("count", "error"):
            change = _change(name, baseline, candidate, rule, looks)
            yield Compared(metric=name, baseline=baseline, candidate=candidate, change=change)


def _change(
    name: str, baseline: Record, candidate: Record, rule: Rule, looks: Looks | None
) -> Change:
    before, after = baseline.metrics[name], candidate.metrics[name]
    if before.unit != after.unit:
        return unjudged(before, after, rule, f"its unit was {before.unit!r}, now {after.unit!r}")
    if before.kind in _MACHINE_BOUND:
        if not same_machine(baseline, candidate):
            return unjudged(before, after, rule, "measured on another class of machine")
        in_turns = bool(baseline.relay) and baseline.relay == candidate.relay
        z = looks.z(looks.after(len(after.generations))) if looks else None
        return judge(before, after, rule, paired=in_turns, z=z)
    if _corpus(baseline) != _corpus(candidate):
        return unjudged(before, after, rule, "measured on another corpus")
    return judge(before, after, rule, paired=True)


def _discoveries(rows: list[Compared], rule: Rule) -> list[Compared]:
    """Benjamini-Hochberg over the whole comparison: what is left of its changes."""
    ps = [row.change.p for row in rows if row.change.p is not None]
    adjusted = iter(false_discovery_control(ps) if ps else ())
    return [
        row if row.change.p is None else _discovered(row, float(next(adjusted)), rule, len(ps))
        for row in rows
    ]


def _discovered(row: Compared, adjusted: float, rule: Rule, n: int) -> Compared:
    is_change = row.change.verdict in ("regressed", "improved")
    if not is_change or adjusted <= rule.false_discovery:
        return row
    reason = (
        f"one of {n} comparisons: with p {adjusted:.2g} after correction it may well be chance, "
        f"{rule.false_discovery:g} is asked"
    )
    return replace(row, change=replace(row.change, verdict="unresolved", reason=reason))


def _overall(rows: Iterable[Compared]) -> Estimate | None:
    """Cells are resampled, since the metrics of one move together."""
    cells: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        timed = row.quantity.kind == "timing" and row.change.low is not None
        if timed and row.change.effect == "ratio":
            cells[row.candidate.cell_id].append(row.slowdown)
    if not cells:
        return None
    value, low, high = summarise([fmean(logs) for logs in cells.values()], "mean")
    interval = (None, None) if low is None or high is None else (math.exp(low), math.exp(high))
    return Estimate(math.exp(value), *interval)


def _widened(rows: Iterable[Compared], rule: Rule) -> Iterator[str]:
    widened = rule.margin_of("timing")
    if widened > rule.margin and any(row.quantity.kind == "timing" for row in rows):
        yield (
            f"the margin of times is {widened:.2%} instead of {rule.margin:.2%}: by so much "
            "selfcheck saw times of equal work differ on this machine"
        )


def _valueless(pairs: Iterable[tuple[Record, Record]]) -> tuple[str, ...]:
    """Metrics that only one side has, or has a value for."""
    names = sorted(
        {
            f"{record.suite} {name}"
            for pair in pairs
            for record, other in (pair, pair[::-1])
            for name, quantity in record.metrics.items()
            if quantity.value is not None
            and (name not in other.metrics or other.metrics[name].value is None)
        }
    )
    return (f"measured on one side only: {', '.join(names)}",) if names else ()


def _badness(row: Compared) -> tuple[int, float, str, str]:
    place = _WORST_FIRST.index(row.change.verdict)
    return place, -row.slowdown, row.candidate.label, row.metric


def _corpus(record: Record) -> object:
    corpus = record.notes.get("corpus")
    return corpus.get("sha256", corpus) if isinstance(corpus, dict) else corpus


def _name(records: Iterable[Record]) -> str:
    return ", ".join(sorted({record.run for record in records}))
