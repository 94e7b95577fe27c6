"""Experiment trackers that records can be sent to, each through its own library.

Every tracker gets one run a cell, the same way:

- parameters: `suite`, `technique`, `device`, `world`, the suite's axes as `setting.NAME` and the
  technique's fields as `option.NAME`; lists and mappings as JSON text, values of null left out;
- metrics: `NAME` with its interval as `NAME.low` and `NAME.high`. A metric that does not apply
  (null) is left out, as is an interval that does not exist; a record holds no NaN and no infinity;
- tags: `llmatrix.cell_id`, `llmatrix.run`, `llmatrix.outcome`, `llmatrix.reason`, `llmatrix.code`,
  `llmatrix.command`, `llmatrix.started`, and `llmatrix.commit` and `llmatrix.machine` where known.

A cell that failed is a failed run without metrics; one that was skipped never ran and is not sent.
The libraries are optional and imported when they are asked for.
"""

import json
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from harness.errors import UsageError
from harness.record import Record

Scalar = bool | int | float | str


def library(module: str, package: str) -> Any:
    """An optional library's module.

    Raises:
        UsageError: if it cannot be imported; names the package to install.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError(f"{module} cannot be imported ({error}): pip install {package}") from error


def ran(records: Sequence[Record]) -> list[Record]:
    """The records of cells that were run at all."""
    return [record for record in records if record.outcome != "skipped"]


def name(record: Record) -> str:
    """What a tracker's list shows."""
    return f"{record.suite} {record.technique}"


def parameters(record: Record) -> dict[str, Scalar]:
    """What was chosen, as scalars."""
    named = {
        "suite": record.suite,
        "technique": record.technique,
        "device": record.device,
        "world": record.world,
        **{f"setting.{key}": value for key, value in record.setting.items()},
        **{f"option.{key}": value for key, value in record.options.items()},
    }
    return {
        key: value if isinstance(value, Scalar) else json.dumps(value, sort_keys=True)
        for key, value in named.items()
        if value is not None
    }


def metrics(record: Record) -> dict[str, float]:
    """What was measured, with intervals."""
    named = {
        key: number
        for metric, q in record.metrics.items()
        for key, number in ((metric, q.value), (f"{metric}.low", q.low), (f"{metric}.high", q.high))
    }
    return {key: number for key, number in named.items() if number is not None}


def tags(record: Record) -> dict[str, str]:
    """Which cell of which run it is, and how it ended."""
    facts = {
        "cell_id": record.cell_id,
        "run": record.run,
        "outcome": record.outcome,
        "reason": record.reason,
        "code": record.code,
        "command": record.command,
        "started": record.started,
        "commit": str(record.environment.get("commit", "")),
        "machine": str(record.environment.get("machine_class", "")),
    }
    return {f"llmatrix.{key}": value for key, value in facts.items() if value}
