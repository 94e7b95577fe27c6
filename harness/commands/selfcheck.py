"""Measure the gate itself on this machine: false alarms, and the smallest slowdown it finds.

Equal pieces of work are compared, and pieces that are 2, 5 and 10 % longer, by the rule that
`llmatrix check` uses. The figures are kept for this machine and stand in the reports of its runs;
the margin of `check` and `compare` is never below the noise found here.
"""

import argparse
import tempfile
from pathlib import Path

from rich.progress import track

from harness.environment import usable_cores
from harness.errors import UsageError
from harness.selfcheck import Protocol, Selfcheck, keep, run_trials, summary
from harness.server import ForkServer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--trials", type=int, default=40, help="about 4 s each on a quiet machine")


def main(options: argparse.Namespace) -> int:
    """Run the trials, keep and print what they say."""
    if options.trials < 1:
        raise UsageError(f"--trials must be at least 1, got {options.trials}")
    protocol = Protocol()
    server = ForkServer(threads=len(usable_cores()))
    try:
        with tempfile.TemporaryDirectory(prefix="llmatrix-") as folder:
            trials = run_trials(options.trials, protocol, server=server, folder=Path(folder))
            done = list(track(trials, description="trials", total=options.trials))
    finally:
        server.close()
    check = summary(done, protocol)
    path = keep(check)
    print(told(check))
    print(f"kept for this machine in {path}")
    return 0


def told(check: Selfcheck) -> str:
    """The figures in words."""
    noise = f"99 % of the differences below {check.noise:.2%}"
    lines = [f"{check.false_alarms} false alarms in {check.trials} trials of equal work ({noise})"]
    for slowdown, share in check.found.items():
        rounds = f"{check.rounds[slowdown]:.0f} of {check.rounds_at_most} rounds on average"
        lines.append(f"+{float(slowdown):.0%}: found in {share:.1%} of trials, {rounds}")
    if check.smallest_found is None:
        lines.append("none of these slowdowns is found in 95 % of trials: quieten the machine")
    else:
        lines.append(f"smallest slowdown found in 95 % of trials: {check.smallest_found:.0%}")
    return "\n".join(lines)
