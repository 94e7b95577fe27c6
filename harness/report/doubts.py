"""What weakens the numbers of a cell or of a run, in plain words."""

from collections.abc import Callable, Sequence

from harness.record import Record
from harness.report.quantities import percent, quantity
from harness.report.tables import axis_text

MOST_HARNESS_SHARE = 0.01  # of a core; above it the harness may have disturbed what it timed
_IDENTITY = {
    "machine_class": "classes of machine",
    "machine": "machines",
    "cpu": "processors",
    "gpu": "GPUs",
    "commit": "commits",
}


def flags(record: Record) -> list[str]:
    """What to doubt in this cell."""
    found = [
        f"{name} is impossible: faster than the {quantity('s', q.floor.seconds)} that the "
        "machine's own ceilings allow, so something was not done or not timed."
        for name, q in record.metrics.items()
        if q.floor is not None and q.floor.impossible
    ]
    if _was_disturbed(record):
        share, most = percent(record.harness_cpu_share or 0), percent(MOST_HARNESS_SHARE, 0)
        found.append(
            f"The harness itself used {share} of a core while this was timed (more than {most}): "
            "it may have disturbed it."
        )
    return found


def warnings(records: Sequence[Record]) -> list[str]:
    """What to doubt in this run."""
    counted: dict[str, Callable[[Record], bool]] = {
        "report a time below what the machine's own ceilings allow: see ⚠.": _is_impossible,
        "ran with uncommitted changes: the commit alone does not reproduce them.": _was_dirty,
        "started on a machine with more runnable processes than cores: trust ratios more than "
        "single times.": _was_busy,
        "were timed while the harness itself used over "
        f"{percent(MOST_HARNESS_SHARE, 0)} of a core: see ⚠.": _was_disturbed,
    }
    found = [
        f"{count:,} of {len(records):,} cells {what}"
        for what, holds in counted.items()
        if (count := sum(map(holds, records)))
    ]
    for key, plural in _IDENTITY.items():
        values = {axis_text(r.environment[key]) for r in records if key in r.environment}
        if len(values) > 1:
            found.append(f"Cells come from {len(values)} {plural}: compare timings within one.")
    return found


def _is_impossible(record: Record) -> bool:
    return any(q.floor is not None and q.floor.impossible for q in record.metrics.values())


def _was_dirty(record: Record) -> bool:
    return bool(record.environment.get("dirty"))


def _was_disturbed(record: Record) -> bool:
    return (record.harness_cpu_share or 0) > MOST_HARNESS_SHARE


def _was_busy(record: Record) -> bool:
    cores = record.environment.get("cores")
    return isinstance(cores, int) and bool(record.load_before) and record.load_before[0] > cores
