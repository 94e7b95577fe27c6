"""How a gate ends: its exit code and the reason for it."""

import argparse
from typing import NamedTuple

from harness.comparison import Comparison
from harness.verdict import VERDICTS, Verdict

FINE, REGRESSED, UNRESOLVED, NOT_MEASURED = 0, 1, 3, 4  # 2 is bad usage
_MAY_FAIL: tuple[Verdict, ...] = ("regressed", "unresolved")


class Ending(NamedTuple):
    """The exit code, and why."""

    code: int
    reason: str


def ending(comparison: Comparison, fail_on: frozenset[Verdict]) -> Ending:
    """Whether a change may pass; a cell that no longer runs never does."""
    if not comparison.rows:
        return Ending(NOT_MEASURED, _nothing(comparison))
    found = counts(comparison)
    bad = [f"{len(comparison.broken)} broken"] if comparison.broken else []
    if found["regressed"] and "regressed" in fail_on:
        bad.append(f"{found['regressed']} regressed")
    if bad:
        return Ending(REGRESSED, " and ".join(reversed(bad)))
    if found["unresolved"] and "unresolved" in fail_on:
        return Ending(UNRESOLVED, f"{found['unresolved']} unresolved")
    asked = " or ".join(verdict for verdict in _MAY_FAIL if verdict in fail_on)
    left = f"; {found['unresolved']} unresolved" if found["unresolved"] else ""
    return Ending(FINE, f"nothing {asked}{left}")


def counts(comparison: Comparison) -> dict[Verdict, int]:
    """Rows by verdict."""
    verdicts = [row.change.verdict for row in comparison.rows]
    return {verdict: verdicts.count(verdict) for verdict in VERDICTS}


def verdicts_to_fail_on(text: str) -> frozenset[Verdict]:
    """The verdicts named in `--fail-on`, between commas.

    Raises:
        argparse.ArgumentTypeError: for a word that is none of them.
    """
    words = [word.strip() for word in text.split(",")]
    chosen = [verdict for verdict in _MAY_FAIL if verdict in words]
    if unknown := [word for word in words if word not in _MAY_FAIL]:
        raise argparse.ArgumentTypeError(
            f"{unknown[0]!r} is nothing to fail on; choose from {', '.join(_MAY_FAIL)}"
        )
    return frozenset(chosen)


def _nothing(comparison: Comparison) -> str:
    if comparison.broken:
        return (
            f"nothing could be compared: none of the {len(comparison.broken)} cells that both "
            "sides have is ok in the candidate"
        )
    return "nothing could be compared: no cell is ok on both sides"
