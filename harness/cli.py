"""The front door: `llmatrix COMMAND ...`; only the chosen command's module is imported.

Exit codes: 0 fine, 1 a cell did not end well, 2 bad input (one message, no traceback), 130 stopped.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from harness.errors import UsageError, near

COMMANDS = {
    "list": "names of techniques, peers, suites and experiments",
    "show": "what one technique or suite is, and how to run it",
    "plan": "the cells that a command line would run, and how long they took before",
    "run": "run the matrix, or what is missing of it",
    "report": "write the tables, plots and page of a run",
    "compare": "two runs, or two revisions measured in turns, side by side",
    "check": "the gate: fails where the candidate regressed against the baseline",
    "history": "metrics over many runs, and the commits at which they changed",
    "bisect": "the commit that made a cell worse, each tried one measured in turns",
    "rerun": "measure one recorded cell again and say whether its record holds",
    "audit": "measure a sample of a run again under changed conditions",
    "export": "records as tables, or to MLflow, Weights & Biases, TensorBoard",
    "selfcheck": "false alarms of the gate on this machine, and the slowdowns it finds",
    "doctor": "what this machine offers and what is missing",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    name, *rest = words
    try:
        return _run(name, rest)
    except UsageError as error:
        print(f"llmatrix: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `llmatrix list | head`
        sys.stderr.close()
        return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error is said."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (`{self.prog} --help` tells more)")


def _run(name: str, arguments: Sequence[str]) -> int:
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise UsageError(f"there is no command {name!r}{near(name, COMMANDS)} (there are: {known})")
    command = import_module(f"harness.commands.{name}")
    parser = _Parser(prog=f"llmatrix {name}", description=command.__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    command.add_arguments(parser)
    return int(command.main(parser.parse_intermixed_args(arguments)))


def _usage() -> str:
    lines = [f"  {name:<8} {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: llmatrix COMMAND ... (llmatrix COMMAND --help tells more)",
            "",
            "One reproducible experiment matrix over the whole large-language-model stack.",
            "",
            *lines,
            "",
            "start: llmatrix run experiment=quick",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
