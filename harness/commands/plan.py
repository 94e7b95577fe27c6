"""The cells that a command line would run: counts, reasons for what is left out, and time."""

import argparse
import json
from collections import Counter
from dataclasses import asdict

from tabulate import tabulate

from harness.configure import compose
from harness.errors import UsageError
from harness.estimate import estimate_s, told_time
from harness.plan import Plan, make_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("overrides", nargs="+", metavar="KEY=VALUE", help="as for llmatrix run")
    parser.add_argument("--json", action="store_true", help="every cell and skip, as JSON")


def main(options: argparse.Namespace) -> int:
    """Print the plan; nothing runs."""
    asked = compose(options.overrides)
    if asked.request is None:
        raise UsageError("run=NAME alone goes on with a stored plan: llmatrix run run=NAME")
    plan = make_plan(asked.request)
    seconds, unknown = estimate_s(asked.execution.results, plan.cells)
    if options.json:
        document = {
            "title": plan.title,
            "estimate_s": seconds,
            "cells_never_run": unknown,
            "cells": [asdict(cell) for cell in plan.cells],
            "skips": [asdict(skip) for skip in plan.skips],
        }
        print(json.dumps(document, indent=1))
        return 0
    _print(plan)
    told = f"about {told_time(seconds)} by earlier runs" if unknown < len(plan.cells) else ""
    new = f"{unknown} never run before" if unknown else ""
    print("; ".join(part for part in (f"{len(plan.cells)} cells", told, new) if part))
    return 0


def _print(plan: Plan) -> None:
    print(f"{plan.title}\n")
    counts = Counter((cell.suite, cell.technique) for cell in plan.cells)
    rows = [(*key, count) for key, count in counts.items()]
    print(tabulate(rows, headers=["suite", "technique", "cells"], tablefmt="github"))
    reasons = Counter((skip.suite, skip.technique, skip.reason) for skip in plan.skips)
    if reasons:
        left_out = [(*key, count) for key, count in reasons.items()]
        headers = ["suite", "technique", "left out because", "cells"]
        print(f"\n{tabulate(left_out, headers=headers, tablefmt='github')}")
    print()
