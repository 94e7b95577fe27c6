"""Samples of gated tests in a JSON file: `--llmatrix-save` writes it, a later run reads it."""

import json
from pathlib import Path
from typing import Any

from harness.environment import environment, now
from harness.errors import UsageError
from harness.gate.writing import writing
from harness.store import write_atomically

_FORMAT = "llmatrix gate, version 1"


def save(path: Path, tests: dict[str, dict[str, Any]]) -> None:
    """Write the samples, seconds, by test.

    Raises:
        UsageError: if the file cannot be written.
    """
    document = {
        "format": _FORMAT,
        "saved": now(),
        "machine_class": environment().get("machine_class", ""),
        "tests": tests,
    }
    with writing(path):
        write_atomically(path, json.dumps(document, indent=1).encode())


def read(path: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """The class of the machine and the samples by test.

    Raises:
        UsageError: if the file is not one of `save`.
    """
    try:
        document = json.loads(path.read_bytes())
        tests = {
            name: {
                "samples": [float(sample) for sample in found["samples"]],
                "generations": [int(count) for count in found["generations"]],
            }
            for name, found in document["tests"].items()
        }
        made, machine = document["format"], str(document["machine_class"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} cannot be read as a baseline: {error!r}; write one with --llmatrix-save"
        ) from error
    if made != _FORMAT:
        raise UsageError(f"{path} is {made!r}, not {_FORMAT!r}; write it anew")
    return machine, tests
