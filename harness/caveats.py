"""What to know before believing a comparison of two runs: one line each, none where all is well."""

from collections.abc import Iterator, Sequence

from scipy.stats import binomtest

from harness.record import Record

_Pairs = Sequence[tuple[Record, Record]]

_FEWEST_CHANGES = 5  # fewer say nothing about a common cause
_COIN = 0.01
_HARNESS_SHARE = 0.01  # of one core: more, and the harness was part of what it measured
_OUR_OWN = {"llmatrix"}  # what is compared may well differ


def same_machine(one: Record, other: Record) -> bool:
    """Whether times and sizes may be compared: measured on one class of machine."""
    return machine(one) == machine(other)


def machine(record: Record) -> str:
    """The record's class of machine; of older records processor and cores."""
    facts = record.environment
    return str(facts.get("machine_class") or f"{facts.get('cpu')}, {facts.get('usable_cores')}")


def caveats(pairs: _Pairs, changes: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """One line for each reason to doubt the verdicts.

    Args:
        pairs: the cells that were compared, all ok.
        changes: cell and direction (+1 or -1) of every change of a time or a size.
    """
    found = (
        _one_way(changes), _machines(pairs), _timing(pairs), _versions(pairs), _harness(pairs),
        _impossible(pairs),
    )  # fmt: skip
    return tuple(line for lines in found for line in lines)


def _one_way(changes: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Many cells cannot all get slower by chance; a machine or a tool makes them.

    A cell counts once, since its metrics move together.
    """
    lean: dict[str, int] = {}
    for cell, direction in changes:
        lean[cell] = lean.get(cell, 0) + direction
    worse, better = (sum(sign * x > 0 for x in lean.values()) for sign in (1, -1))
    n, most = worse + better, max(worse, better)
    if n >= _FEWEST_CHANGES and binomtest(most, n).pvalue < _COIN:
        which = f"all {n}" if most == n else f"{most} of {n}"
        way = "worse" if worse == most else "better"
        yield f"{which} changed cells got {way}: suspect the machine or the tool before the code"


def _machines(pairs: _Pairs) -> Iterator[str]:
    other = [pair for pair in pairs if not same_machine(*pair)]
    if other:
        before, after = map(machine, other[0])
        yield (
            f"{_cells(other)} measured on different machines ({before}; {after}): "
            "their times and sizes have no verdict"
        )


def _timing(pairs: _Pairs) -> Iterator[str]:
    """Of what was timed, what was not timed as it should be."""
    timed = [
        pair
        for pair in pairs
        if any(q.kind == "timing" and q.samples for q in pair[0].metrics.values())
        and same_machine(*pair)
    ]
    blocks = [(x, y) for x, y in timed if not x.relay or x.relay != y.relay]
    if blocks:
        yield (
            f"{_cells(blocks)} not timed in turns: what else the machine did meanwhile may look "
            "like a change; compare --git measures both sides together"
        )
    single = [pair for pair in timed if any(_processes(record) < 2 for record in pair)]
    if single:
        yield (
            f"{_cells(single)} timed in one process a side: by how much processes of the same code "
            "differ is not in the intervals"
        )


def _processes(record: Record) -> int:
    return max(len(quantity.generations) for quantity in record.metrics.values())


def _versions(pairs: _Pairs) -> Iterator[str]:
    moved = sorted({line for pair in pairs for line in _moved(*pair)})
    if moved:
        yield f"other libraries: {', '.join(moved)}"


def _moved(before: Record, after: Record) -> Iterator[str]:
    old, new = (
        {"python": r.environment.get("python"), **r.environment.get("versions", {})}
        for r in (before, after)
    )
    for name in (old.keys() | new.keys()) - _OUR_OWN:
        if old.get(name) != new.get(name):
            yield f"{name} {old.get(name)} -> {new.get(name)}"


def _harness(pairs: _Pairs) -> Iterator[str]:
    shares = [record.harness_cpu_share or 0.0 for pair in pairs for record in pair]
    over = [share for share in shares if share > _HARNESS_SHARE]
    if over:
        yield (
            f"the harness itself took up to {max(over):.1%} of a core while {len(over)} of "
            f"{len(shares)} records were timed; {_HARNESS_SHARE:.0%} is the bound"
        )


def _impossible(pairs: _Pairs) -> Iterator[str]:
    named = sorted(
        {
            f"{record.run} {record.label} {name}"
            for pair in pairs
            for record in pair
            for name, quantity in record.metrics.items()
            if quantity.floor and quantity.floor.impossible
        }
    )
    if named:
        more = f" and {len(named) - 3} more" if len(named) > 3 else ""
        yield f"faster than the machine can be, so not all was done: {'; '.join(named[:3])}{more}"


def _cells(pairs: _Pairs) -> str:
    return f"{len(pairs)} {'cell was' if len(pairs) == 1 else 'cells were'}"
