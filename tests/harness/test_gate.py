"""The gate's answer: exit codes, and one comparison told to people, JUnit and GitHub."""

import random
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped

from harness.cell import digest
from harness.comparison import compare
from harness.errors import UsageError
from harness.gate.ending import ending, verdicts_to_fail_on
from harness.gate.github import MOST, annotations, append_summary
from harness.gate.junit import write_junit
from harness.gate.labels import short_labels, whole_label
from harness.gate.sides import Judged
from harness.gate.told import headline, markdown, report
from harness.record import Quantity, Record
from harness.statistics import summarise

REGRESSED = frozenset({"regressed"})
BOTH = frozenset({"regressed", "unresolved"})


def times(middle, spread=0.01, n=60, seed=0):
    chance = random.Random(f"{middle} {spread} {seed}")
    samples = [middle * chance.lognormvariate(0, spread) for _ in range(n)]
    value, low, high = summarise(samples)
    return Quantity(
        value=value, low=low, high=high, samples=samples, unit="s", better="lower", kind="timing"
    )


def record(technique, seconds=None, *, run="old", outcome="ok", reason="", setting=None, **fields):
    setting, options = setting or {"n": 1}, fields.pop("options", {})
    return Record(
        cell_id=digest([technique, setting, options]), run=run, suite=fields.pop("suite", "speed"),
        technique=technique, options=options, setting=setting, code="c", world=1, device="cpu",
        command=f"llmatrix run technique={technique}", outcome=outcome, reason=reason,
        metrics={} if seconds is None else {"seconds": seconds},
        started="2026-01-01T00:00:00Z", wall_s=1.0, environment={"machine_class": "m"}, **fields,
    )  # fmt: skip


def judged(old, new, *, live=False, confirmed=False):
    new = [replace(record, run="new") for record in new]
    return Judged(comparison=compare(old, new), live=live, confirmed=confirmed)


@pytest.fixture(scope="module")
def mixed():
    """One of each: regressed, improved, unresolved, equivalent, broken, alone on either side."""
    old = {"slow": 1.0, "quick": 1.0, "same": 1.0, "breaks": 1.0, "gone": 1.0}
    new = {"slow": 1.1, "quick": 0.9, "same": 1.0, "fresh": 1.0}
    before = [record(f"toys/{name}", times(value)) for name, value in old.items()]
    after = [record(f"toys/{name}", times(value, seed=1)) for name, value in new.items()]
    before.append(record("toys/noisy", times(1.0, 0.5)))
    after.append(record("toys/noisy", times(1.0, 0.5, seed=1)))
    after.append(record("toys/breaks", outcome="oom", reason="needs 3 GiB of \x1b[31m2\x1b[0m"))
    found = judged(before, after)
    verdicts = {row.candidate.technique: row.change.verdict for row in found.comparison.rows}
    assert verdicts == {
        "toys/slow": "regressed", "toys/quick": "improved", "toys/same": "equivalent",
        "toys/noisy": "unresolved",
    }  # fmt: skip
    return found


def without_rows(judged, *verdicts, broken=True):
    comparison = judged.comparison
    rows = tuple(row for row in comparison.rows if row.change.verdict not in verdicts)
    return replace(comparison, rows=rows, broken=comparison.broken if broken else ())


@pytest.mark.parametrize(
    ("left_out", "broken", "fail_on", "code"),
    [
        ((), True, REGRESSED, 1),
        ((), False, REGRESSED, 1),
        (("regressed",), True, REGRESSED, 1),  # a cell that broke fails whatever is asked
        (("regressed",), False, REGRESSED, 0),
        (("regressed",), False, BOTH, 3),
        ((), False, BOTH, 1),  # worse than unresolved
        ((), False, frozenset({"unresolved"}), 3),
        (("regressed", "unresolved"), False, BOTH, 0),
        (("regressed", "unresolved", "improved", "equivalent"), True, REGRESSED, 4),
        (("regressed", "unresolved", "improved", "equivalent"), False, REGRESSED, 4),
    ],
)
def test_exit_code(mixed, left_out, broken, fail_on, code):
    assert ending(without_rows(mixed, *left_out, broken=broken), fail_on).code == code


def test_the_ending_says_why(mixed):
    assert ending(mixed.comparison, REGRESSED).reason == "1 regressed and 1 broken"
    calm = without_rows(mixed, "regressed", broken=False)
    assert ending(calm, REGRESSED).reason == "nothing regressed; 1 unresolved"
    only_broken = without_rows(mixed, "regressed", "unresolved", "improved", "equivalent")
    assert "none of the 1 cells" in ending(only_broken, REGRESSED).reason


@pytest.mark.parametrize("text", ["regresed", "", "regressed,", "improved", "regressed unresolved"])
def test_an_unknown_verdict_to_fail_on_is_refused(text):
    with pytest.raises(Exception, match="nothing to fail on; choose from regressed, unresolved"):
        verdicts_to_fail_on(text)


def test_verdicts_to_fail_on():
    assert verdicts_to_fail_on("unresolved, regressed") == BOTH


def test_verdicts_come_first_and_what_is_equivalent_is_counted(mixed):
    told = report(mixed)
    first, *_ = told.splitlines()
    assert first == headline(mixed.comparison)
    assert first.startswith("new against old: 1 regressed, 1 improved, 1 equivalent, 1 unresolved")
    lines = [line for line in told.splitlines() if line.startswith("|")]
    assert [line.split()[2] for line in lines[2:]] == ["regressed", "unresolved", "improved"]
    assert "1 equivalent within 0.01 not shown" in told
    assert "toys/same" not in told
    assert "toys/same" in report(mixed, every=True)


def test_cells_that_could_not_be_compared_are_told(mixed):
    told = report(mixed)
    assert "- speed toys/breaks n=1: oom: needs 3 GiB of" in told
    assert "again: `llmatrix run technique=toys/breaks`" in told
    assert "only in old (1): speed toys/gone n=1" in told
    assert "only in new (1): speed toys/fresh n=1" in told


def test_a_regression_of_stored_records_is_told_to_be_unconfirmed(mixed):
    assert "not confirmed: these are stored records" in report(mixed)
    assert "not confirmed" not in report(replace(mixed, live=True, confirmed=True))
    calm = replace(mixed, comparison=without_rows(mixed, "regressed"))
    assert "not confirmed" not in report(calm)


def test_a_long_table_is_cut_to_what_a_forge_takes():
    setting = [{"n": n} for n in range(200)]
    old = [record("toys/a", times(1.0), setting=one) for one in setting]
    new = [record("toys/a", times(2.0), setting=one) for one in setting]
    found = judged(old, new)
    whole, cut = markdown(found), markdown(found, longest=6_000)
    assert whole.count("❌") == 200
    assert len(cut) <= 6_000
    shown = cut.count("❌")
    assert 0 < shown < 200
    assert f"and {200 - shown} more rows" in cut


def test_a_pipe_does_not_end_a_table_cell():
    old = [record("toys/a", times(1.0), setting={"n": x}) for x in ("a|b", "c")]
    new = [record("toys/a", times(2.0), setting={"n": x}) for x in ("a|b", "c")]
    lines = [line for line in markdown(judged(old, new)).splitlines() if line.startswith("| ❌")]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_short_labels_hold_what_differs():
    records = [
        record("toys/a", setting={"n": 1, "seed": 0}, options={"k": 1, "m": 0}),
        record("toys/a", setting={"n": 2, "seed": 0}, options={"k": 2, "m": 0}),
        record("toys/b", setting={"n": 2, "seed": 0}),
    ]
    assert short_labels(records) == ["toys/a n=1 k=1", "toys/a n=2 k=2", "toys/b n=2"]
    other = record("toys/b", suite="size", setting={"x": 1})
    assert short_labels([records[2], other]) == ["speed toys/b", "size toys/b"]


def test_a_whole_label_does_not_depend_on_its_neighbours():
    assert (
        whole_label(record("toys/a", setting={"n": 1}, options={"k": [1, 2]}))
        == "speed toys/a n=1 k=[1,2]"
    )


@pytest.fixture
def junit(mixed, tmp_path):
    def write(found=mixed, fail_on=REGRESSED):
        path = tmp_path / "new" / "junit.xml"
        write_junit(found, ending(found.comparison, fail_on), fail_on, path)
        return path

    return write


def cases(path):
    return {case.classname: case for suite in JUnitXml.fromfile(str(path)) for case in suite}


def test_junit_has_a_case_for_every_metric_and_every_broken_cell(junit):
    document = JUnitXml.fromfile(str(junit()))
    assert (document.tests, document.failures, document.errors, document.skipped) == (5, 1, 1, 1)
    (suite,) = document
    assert suite.name == "speed"
    assert {p.name: p.value for p in suite.properties()} == {
        "baseline": "old", "candidate": "new", "margin": "0.01", "measured": "stored records",
        "confirmed": "false",
    }  # fmt: skip


def test_junit_tells_verdicts_in_its_own_words(junit):
    found = cases(junit())
    assert [type(result) for result in found["toys/slow"].result] == [Failure]
    assert [type(result) for result in found["toys/noisy"].result] == [Skipped]
    assert [type(result) for result in found["toys/breaks"].result] == [Error]
    assert found["toys/quick"].is_passed
    assert found["toys/same"].is_passed
    assert found["toys/slow"].name == "speed toys/slow n=1 seconds"
    failure = found["toys/slow"].result[0]
    assert "seconds regressed" in failure.message
    assert "not confirmed: these are stored records" in failure.message
    assert "llmatrix run technique=toys/slow" in failure.text


def test_unresolved_is_an_error_where_the_gate_fails_on_it(junit):
    assert [type(r) for r in cases(junit(fail_on=BOTH))["toys/noisy"].result] == [Error]


def test_confirmed_regressions_are_not_doubted(junit, mixed):
    path = junit(replace(mixed, live=True, confirmed=True))
    assert "not confirmed" not in path.read_text(encoding="utf-8")
    assert 'name="confirmed" value="true"' in path.read_text(encoding="utf-8")


def test_a_gate_that_could_not_measure_says_so_in_junit(junit):
    found = cases(junit(judged([record("toys/a", outcome="failed")], [])))
    assert [type(result) for result in found["gate"].result] == [Error]


def test_junit_has_the_order_that_schemas_ask_for(junit):
    order = ["properties", "skipped", "error", "failure", "system-out"]
    root = ElementTree.parse(junit()).getroot()  # noqa: S314 (our own file)
    assert root.tag == "testsuites"
    for suite in root:
        assert next(child.tag for child in suite) == "properties"
        assert {child.tag for child in suite} == {"properties", "testcase"}
        assert {"name", "tests", "failures", "errors", "skipped", "time"} <= set(suite.attrib)
        for case in suite.iter("testcase"):
            tags = [child.tag for child in case]
            assert tags == sorted(tags, key=order.index)
            assert {"name", "classname", "time"} <= set(case.attrib)
    properties = {p.get("name"): p.get("value") for p in root.iter("property")}
    assert float(properties["ratio"]) > 0


def test_a_junit_file_that_cannot_be_written_is_one_message(mixed, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write .*choose another file"):
        write_junit(mixed, ending(mixed.comparison, BOTH), BOTH, tmp_path / "file" / "junit.xml")


def told_to_github(found, fail_on=REGRESSED):
    return list(annotations(found, ending(found.comparison, fail_on), fail_on))


def test_annotations_have_levels(mixed):
    lines = told_to_github(mixed)
    assert lines[0].startswith(
        "::error title=llmatrix%3A 1 regressed and 1 broken::new against old"
    )
    assert any(line.startswith("::error title=broken::speed toys/breaks") for line in lines)
    assert any(line.startswith("::error title=regressed%3A toys/slow seconds::") for line in lines)
    assert any(line.startswith("::warning title=unresolved%3A toys/noisy") for line in lines)
    assert any(line.startswith("::error title=unresolved") for line in told_to_github(mixed, BOTH))
    calm = replace(mixed, comparison=without_rows(mixed, "regressed", broken=False))
    assert told_to_github(calm)[0].startswith("::notice title=llmatrix")


def test_an_annotation_is_one_line_whatever_it_says():
    old = [record("toys/a", times(1.0)), record("toys/b", times(1.0))]
    new = [record("toys/a", outcome="failed", reason="100 %\r\nof: it, all"), old[1]]
    line = next(x for x in told_to_github(judged(old, new)) if "toys/a" in x)
    assert "100 %25%0D%0Aof: it, all" in line
    assert len(line.splitlines()) == 1


def test_no_more_annotations_than_github_keeps():
    setting = [{"n": n} for n in range(3 * MOST)]
    old = [record("toys/a", times(1.0), setting=one) for one in setting]
    new = [record("toys/a", times(2.0), setting=one) for one in setting]
    lines = told_to_github(judged(old, new))
    levels = [line.split()[0] for line in lines]
    assert levels.count("::error") == MOST
    assert all(levels.count(level) <= MOST for level in levels)


def test_the_summary_is_appended(mixed, tmp_path, monkeypatch):
    path = tmp_path / "summary.md"
    path.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    append_summary(mixed)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("before\n### llmatrix: new against old")
    assert "| ❌ regressed" in text


def test_outside_github_there_is_no_summary(mixed, monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    append_summary(mixed)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/nowhere/summary.md")
    with pytest.raises(UsageError, match="GITHUB_STEP_SUMMARY"):
        append_summary(mixed)
