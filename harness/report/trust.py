"""How far verdicts can be trusted on a run's machine: what the gate's self-check found there."""

from collections.abc import Sequence
from pathlib import Path

from harness.record import Record
from harness.report.quantities import percent
from harness.selfcheck import FILE, Selfcheck, kept, read, write

UNTOLD = (
    "No self-check of this class of machine is known: llmatrix selfcheck measures how often equal "
    "work is called slower here, and how small a slowdown is found."
)


def selfcheck_of(
    folder: Path, records: Sequence[Record], *, keep: bool = False
) -> Selfcheck | None:
    """The self-check beside a run's records, or else that of their one class of machine.

    With `keep`, the latter is put beside the records: it tells of the machine as it was then.
    """
    if (found := read(folder / FILE)) is not None:
        return found
    classes = {record.environment.get("machine_class") for record in records}
    known = classes.pop() if len(classes) == 1 else None
    check = kept(known) if isinstance(known, str) and known else None
    if check and keep:
        write(check, folder / FILE)
    return check


def told(check: Selfcheck) -> str:
    """Its figures in words."""
    alarms = f"{check.false_alarms} false {'alarm' if check.false_alarms == 1 else 'alarms'}"
    share = percent(check.false_alarms / max(check.trials, 1))
    slowdowns = ", ".join(
        f"{percent(share, 0)} of +{percent(float(slowdown), 0)}"
        for slowdown, share in check.found.items()
    )
    smallest = (
        "none of them reliably"
        if check.smallest_found is None
        else f"reliably from +{percent(check.smallest_found, 0)}"
    )
    return (
        f"Self-check of {check.moment[:10]} at load {check.load[0]:.1f} on {check.machine_class}: "
        f"{alarms} in {check.trials:,} trials of equal work ({share}), "
        f"99 % of the differences below {percent(check.noise)}; "
        f"slowdowns found: {slowdowns}, {smallest}."
    )
