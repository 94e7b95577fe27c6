"""Measure one recorded cell again in a fresh process and say whether its record holds.

  llmatrix rerun quick/0310d7715532fe60                 a run and a cell id, or the id's beginning
  llmatrix rerun results/quick/cells/0310d7715532fe60.json
  llmatrix rerun quick/0310 --anew                      trained models and the like made again too

The cell gets the record's own options and setting. Counts, qualities and errors must be equal, up
to the rounding of doubles. Times and memory may not have changed by more than the margin; what
seems changed is measured twice. They are not compared across classes of machines.

Exit codes: 0 it holds, 1 it does not, 2 bad input, 4 it cannot be measured here.
"""

import argparse
import json
import sys
from pathlib import Path

from tabulate import tabulate

from harness.checks import MARGIN, TOLERANCE, Repeat, as_json, differences
from harness.environment import load
from harness.errors import UsageError
from harness.record import Record
from harness.repeat import Terms, find_record, hindrance, repeat, terms_of

_MARKS = {True: "ok", False: "NO", None: "-"}
_MACHINE_GAVE_UP = ("oom", "timeout")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("record", help="path of a record file, or RUN/CELL_ID")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where runs are kept")
    add_bounds(parser)
    parser.add_argument("--anew", action="store_true", help="with an empty cache of artifacts")
    parser.add_argument("--json", action="store_true", help="the result as JSON")


def add_bounds(parser: argparse.ArgumentParser) -> None:
    """What counts as the same."""
    parser.add_argument(
        "--margin", type=float, default=MARGIN, help="relative, of times and memory: %(default)s"
    )
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help="relative, of the rest: %(default)s"
    )


def main(options: argparse.Namespace) -> int:
    """Repeat the cell; nothing is written to its run."""
    terms = Terms(margin=options.margin, tolerance=options.tolerance, anew=options.anew)
    record, store = find_record(options.results, options.record)
    if record.outcome == "skipped":
        raise UsageError(
            f"{record.label} was skipped ({record.reason}): there is nothing to repeat"
        )
    if reason := hindrance(record):
        print(f"cannot be measured here: {record.label}: {reason}", file=sys.stderr)
        return 4
    (repeated,) = repeat([record], terms_of(store, terms))
    if options.json:
        document = as_json(repeated) | {"run": record.run, "differs": differences(record)}
        print(json.dumps(document, indent=1))
    else:
        _print(record, repeated)
    if repeated.again.outcome != record.outcome and repeated.again.outcome in _MACHINE_GAVE_UP:
        return 4
    return int(not repeated.holds)


def _print(record: Record, repeated: Repeat) -> None:
    print(f"{record.label}\nrun {record.run}, measured {record.started}")
    for difference in differences(record):
        print(f"differs now: {difference}")
    if record.relay:
        print("differs now: it took turns with other cells then and is alone now")
    if record.load_before:
        print(f"load {record.load_before[0]:g} then, {load()[0]:g} now")
    print(f"{record.outcome} then, {repeated.again.outcome} now")
    rows = [
        (_MARKS[c.holds], c.metric, _told(c.before, c.unit), _told(c.after, c.unit), c.told)
        for c in repeated.checks
    ]
    if rows:
        headers = ["", "metric", "recorded", "repeated", ""]
        print(f"\n{tabulate(rows, headers=headers, tablefmt='github', disable_numparse=True)}")
    verdict = "the record holds" if repeated.holds else "the record does not hold: "
    print(f"\n{verdict}{'; '.join(repeated.broken)}")


def _told(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.6g}{'' if unit == '1' else f' {unit}'}"
