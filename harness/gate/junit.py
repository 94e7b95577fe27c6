"""A comparison as JUnit XML: a test suite for each suite, a test case for each compared metric.

Regressed is a failure, unresolved is skipped (an error where the gate is to fail on it), and a cell
that no longer runs is an error.
"""

import re
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from junitparser import (
    Error,
    Failure,
    JUnitXml,
    Properties,
    Property,
    Skipped,
    TestCase,
    TestSuite,
)

from harness.comparison import Compared
from harness.gate.ending import NOT_MEASURED, Ending
from harness.gate.labels import whole_label
from harness.gate.sides import Judged
from harness.gate.told import details, sentence, unconfirmed
from harness.gate.writing import writing
from harness.record import Record
from harness.verdict import Verdict

# Characters that XML 1.0 has no place for: terminal colours and the like in a log.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(judged: Judged, ended: Ending, fail_on: frozenset[Verdict], path: Path) -> None:
    """Write the file.

    Raises:
        UsageError: if it cannot be written.
    """
    document = JUnitXml("llmatrix")
    cases = [(row.candidate.suite, _case(judged, row, fail_on)) for row in judged.comparison.rows]
    cases += [(new.suite, _broken(new)) for _, new in judged.comparison.broken]
    if ended.code == NOT_MEASURED:
        cases.append(("gate", _with(_new("gate", "measurement"), Error(ended.reason, "gate"))))
    for suite, members in groupby(sorted(cases, key=lambda case: case[0]), lambda case: case[0]):
        document.add_testsuite(_suite(judged, suite, (case for _, case in members)))
    document.update_statistics()
    with writing(path):
        document.write(str(path), pretty=True)


def _suite(judged: Judged, name: str, cases: Iterable[TestCase]) -> TestSuite:
    suite = TestSuite(_clean(name))
    comparison = judged.comparison
    for key, value in (
        ("baseline", comparison.baseline),
        ("candidate", comparison.candidate),
        ("margin", f"{comparison.rule.margin:g}"),
        ("measured", "side by side" if judged.live else "stored records"),
        ("confirmed", str(judged.confirmed).lower()),
    ):
        suite.add_property(key, _clean(value))
    suite.add_testcases(list(cases))
    return suite


def _case(judged: Judged, row: Compared, fail_on: frozenset[Verdict]) -> TestCase:
    change = row.change
    case = _new(row.candidate.technique, f"{whole_label(row.candidate)} {row.metric}")
    facts = {"verdict": change.verdict, change.effect: change.value, "low": change.low}
    facts |= {"high": change.high, "p": change.p, "margin": change.margin, "paired": change.paired}
    properties = Properties()
    for key, value in facts.items():
        if value is not None:
            properties.add_property(Property(key, str(value)))
    case.append(properties)
    if (result := _result(judged, row, fail_on)) is not None:
        _with(case, result)
    case.system_out = _clean(details(row))
    return case


def _result(
    judged: Judged, row: Compared, fail_on: frozenset[Verdict]
) -> Failure | Error | Skipped | None:
    message = _clean(sentence(row))
    match row.change.verdict:
        case "regressed":
            if doubt := unconfirmed(judged):
                message = f"{message} ({doubt})"
            failure = Failure(message, "regressed")
            failure.text = f"repeat the cell: {_clean(row.candidate.command)}"
            return failure
        case "unresolved" if "unresolved" in fail_on:
            return Error(message, "unresolved")
        case "unresolved":
            return Skipped(message, "unresolved")
    return None


def _broken(record: Record) -> TestCase:
    error = Error(_clean(f"{record.outcome}: {record.reason}; ok in the baseline"), record.outcome)
    error.text = f"repeat the cell: {_clean(record.command)}"
    case = _with(_new(record.technique, whole_label(record)), error)
    if record.log_tail:
        case.system_out = _clean(record.log_tail)
    return case


def _new(classname: str, name: str) -> TestCase:
    return TestCase(_clean(name), _clean(classname), 0.0)


def _with(case: TestCase, result: Failure | Error | Skipped) -> TestCase:
    case.append(result)
    return case


def _clean(text: str) -> str:
    return _NOT_XML.sub("�", text)
