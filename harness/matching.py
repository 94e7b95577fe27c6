"""Which cell of one run is which cell of another: the same work, though not the same code.

Code differs by design, so the cell id does not tell. Cells with the same configuration match;
those left over match on the axes and options that both sides know, since newer code may have an
option that older code lacks.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from harness.errors import UsageError
from harness.record import Record

_Kind = tuple[str, str, str, int]  # what must be equal whatever the axes


@dataclass(frozen=True, kw_only=True, slots=True)
class Matched:
    """Cells of both runs, and of one alone."""

    pairs: tuple[tuple[Record, Record], ...]
    only_baseline: tuple[Record, ...]
    only_candidate: tuple[Record, ...]


def match(baseline: Collection[Record], candidate: Collection[Record]) -> Matched:
    """Pair the cells; of several records of one cell (its code was edited) the newest counts.

    Raises:
        UsageError: if several cells of one run could be the same cell of the other.
    """
    left, right = _newest(baseline), _newest(candidate)
    pairs = [(left.pop(key), right.pop(key)) for key in list(left) if key in right]
    known = _known(baseline), _known(candidate)
    alike = _grouped(left.values(), known), _grouped(right.values(), known)
    both = alike[0].keys() & alike[1].keys()
    pairs += [_only_pair(alike[0].pop(key), alike[1].pop(key)) for key in sorted(both)]
    alone = [tuple(record for group in side.values() for record in group) for side in alike]
    return Matched(pairs=tuple(pairs), only_baseline=alone[0], only_candidate=alone[1])


def _newest(records: Iterable[Record]) -> dict[str, Record]:
    """By whole configuration."""
    return {
        _key(record, _axes(record)): record
        for record in sorted(records, key=lambda record: record.started)
    }


def _known(records: Iterable[Record]) -> dict[_Kind, set[str]]:
    """Names of the axes and options that a side's code has, by kind of cell."""
    known: dict[_Kind, set[str]] = defaultdict(set)
    for record in records:
        known[_kind(record)] |= _axes(record).keys()
    return known


def _grouped(
    records: Iterable[Record], known: tuple[dict[_Kind, set[str]], dict[_Kind, set[str]]]
) -> dict[str, list[Record]]:
    """By what both sides know of the configuration."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        shared = known[0].get(_kind(record), set()) & known[1].get(_kind(record), set())
        axes = {name: value for name, value in _axes(record).items() if name in shared}
        groups[_key(record, axes)].append(record)
    return groups


def _only_pair(left: list[Record], right: list[Record]) -> tuple[Record, Record]:
    if len(left) == len(right) == 1:
        return left[0], right[0]
    several, run = (left, right[0].run) if len(left) > 1 else (right, left[0].run)
    differ = {
        name
        for name in _axes(several[0])
        if len({json.dumps(_axes(r).get(name), sort_keys=True) for r in several}) > 1
    }
    raise UsageError(
        f"{len(several)} cells of run {several[0].run!r} could be the same cell of run {run!r}: "
        f"{several[0].suite} {several[0].technique}, which differ in {', '.join(sorted(differ))}, "
        "unknown there; compare runs that fix it"
    )


def _kind(record: Record) -> _Kind:
    return record.suite, record.technique, record.device, record.world


def _axes(record: Record) -> dict[str, object]:
    settings = {f"setting {name}": value for name, value in record.setting.items()}
    return settings | {f"option {name}": value for name, value in record.options.items()}


def _key(record: Record, axes: dict[str, object]) -> str:
    return json.dumps([_kind(record), axes], sort_keys=True)
