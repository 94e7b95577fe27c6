"""Run the matrix, or what is missing of it.

  llmatrix run experiment=quick                          a committed experiment
  llmatrix run experiment=tokenizers vocab_size=1024,8192 seed=0,1 hydra/launcher=joblib
  llmatrix run suite=tokenization 'technique=tokenizers/*'
  llmatrix run run=NAME                                  go on with a run where it stopped
  llmatrix run run=NAME retry=failed                     measure its failed cells again

Everything is a Hydra override; keys that Hydra does not know are axes of the matrix.
"""

import argparse
import signal
from types import FrameType

from harness.configure import multirun
from harness.sweeper import shard_task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("overrides", nargs="+", metavar="KEY=VALUE", help="Hydra overrides")


def main(options: argparse.Namespace) -> int:
    """Run to the end; the sweeper's exit code."""
    signal.signal(signal.SIGTERM, _stop)
    multirun(options.overrides, shard_task)
    return 0


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
