"""A comparison told to GitHub Actions: annotations on stdout, and the step's summary."""

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from harness.errors import UsageError
from harness.gate.ending import FINE, Ending
from harness.gate.labels import whole_label
from harness.gate.sides import Judged
from harness.gate.told import headline, markdown, sentence, unconfirmed
from harness.verdict import Verdict

MOST = 10  # annotations of a kind that GitHub keeps of one step
_SUMMARY = 1_000_000  # characters; GitHub takes 1 MiB of a step
_LEVELS: Mapping[Verdict, str] = {"regressed": "error", "unresolved": "warning"}


def annotations(judged: Judged, ended: Ending, fail_on: frozenset[Verdict]) -> Iterator[str]:
    """Workflow commands, the worst first, no more than GitHub keeps."""
    comparison = judged.comparison
    level = "notice" if ended.code == FINE else "error"
    yield _command(level, f"llmatrix: {ended.reason}", headline(comparison))
    errors = [
        ("error", "broken", f"{new.label}: {new.outcome}: {new.reason}\n{new.command}")
        for _, new in comparison.broken
    ]
    doubt = unconfirmed(judged)
    for row in comparison.rows:
        verdict = row.change.verdict
        if verdict in _LEVELS:
            kind = "error" if verdict in fail_on else "warning"
            told = f"{whole_label(row.candidate)}: {sentence(row)}\n{row.candidate.command}"
            told += f"\n{doubt}" if verdict == "regressed" and doubt else ""
            errors.append((kind, f"{verdict}: {row.candidate.technique} {row.metric}", told))
    for kind, room in (("error", MOST - (level == "error")), ("warning", MOST)):
        yield from islice((_command(*one) for one in errors if one[0] == kind), room)
    for warning in islice(comparison.warnings, MOST - (level == "notice")):
        yield _command("notice", "llmatrix", warning)


def append_summary(judged: Judged) -> None:
    """Add the table to the step's summary; outside GitHub Actions there is none.

    Raises:
        UsageError: if the file that GitHub names cannot be written.
    """
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(markdown(judged, longest=_SUMMARY))
    except OSError as error:
        raise UsageError(
            f"cannot write $GITHUB_STEP_SUMMARY ({path}): {error.strerror}; unset it"
        ) from error


def _command(level: str, title: str, message: str) -> str:
    escaped = _escape(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={escaped}::{_escape(message)}"


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
