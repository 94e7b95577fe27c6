"""The page of a comparison: verdicts first, every interval against its margin, nothing hidden."""

import json
import re
from dataclasses import replace

import pytest

from harness.comparison import compare
from harness.report.compared import MOST_ROWS, write_comparison
from harness.statistics import Estimate
from harness.verdict import Change
from tests.harness.reporting import HOSTILE, record, score, seconds


def page_of(tmp_path, before, after):
    comparison = compare(before, after)
    write_comparison(comparison, tmp_path / "new" / "compared.html")
    return comparison, (tmp_path / "new" / "compared.html").read_text(encoding="utf-8")


def both(*pairs):
    """Records of one cell each, from their seconds before and after."""
    before = [
        record("speed", f"toys/t{i}", {"seconds": seconds(a)}) for i, (a, _) in enumerate(pairs)
    ]
    after = [replace(one, run="s", metrics={"seconds": seconds(b)})
             for one, (_, b) in zip(before, pairs, strict=True)]  # fmt: skip
    return before, after


def strips(page):
    found = re.findall(r'data-w="([^"]+)" data-band="([^"]+)"', page)
    return [[int(x) for x in (*strip.split(), *band.split())] for strip, band in found]


def test_counts_words_and_symbols_come_first(tmp_path):
    _, page = page_of(tmp_path, *both((1.0, 2.0), (1.0, 0.5), (1.0, 1.0)))
    head = page[: page.index("<table")]
    assert "✗ 1</b> regressed" in head
    assert "✓ 1</b> improved" in head
    rows = re.findall(r'<td class="verdict (\w+)">(\S) \1</td>', page)
    assert rows[0] == ("regressed", "✗")
    assert ("improved", "✓") in rows


def test_an_interval_is_drawn_against_the_margin(tmp_path):
    comparison, page = page_of(tmp_path, *both((1.0, 1.2)))
    ((value, low, high, none, left, right),) = strips(page)
    assert none == 500
    assert 500 - left == right - 500 > 0
    assert right < low < value < high <= 1000  # all of it beyond the band: a verdict
    assert comparison.rows[0].change.verdict == "regressed"


def test_what_could_not_be_compared_is_listed(tmp_path):
    before, after = both((1.0, 1.0), (1.0, 1.0), (1.0, 1.0))
    after[0] = replace(after[0], outcome="oom", reason="needs 3 GiB", metrics={})
    extra = replace(record("speed", "toys/new", {"seconds": seconds(1.0)}), run="s")
    _, page = page_of(tmp_path, before[:2], [*after, extra])
    assert "✗ 1</b> broken" in page
    assert "needs 3 GiB" in page
    assert "Only in s (2)" in page
    assert extra.command in page


def test_a_cell_that_was_mended_is_listed(tmp_path):
    before, after = both((1.0, 1.0), (1.0, 1.0))
    before[0] = replace(before[0], outcome="failed", reason="no", metrics={})
    _, page = page_of(tmp_path, before, after)
    assert "Mended: measured in s alone (1)" in page


def test_what_differs_between_the_machines_comes_first(tmp_path):
    before, after = (
        [replace(one, environment={"cpu": "same", "python": version}) for one in side]
        for side, version in zip(both((1.0, 1.0)), ("3.11", "3.12"), strict=True)
    )
    _, page = page_of(tmp_path, before, after)
    facts = page[page.index('<h2 id="where">') :]
    assert facts.index("3.12") < facts.index("same")
    assert facts.count("differs") == 1


def test_nothing_in_common_is_said(tmp_path):
    _, page = page_of(tmp_path, [record("speed", "toys/a", {"seconds": seconds(1)})], [])
    assert "Nothing could be compared." in page
    assert '<table class="cells' not in page


def test_text_of_records_is_never_markup(tmp_path):
    before, after = both((1.0, 2.0))
    before[0] = replace(before[0], command=HOSTILE, run=HOSTILE)
    after[0] = replace(after[0], outcome="failed", reason=HOSTILE, metrics={})
    _, page = page_of(tmp_path, before, after)
    assert HOSTILE not in page
    assert page.count("<script") == 2


def test_differences_are_drawn_in_margins_too(tmp_path):
    before, after = both((1.0, 1.0))
    comparison = compare(before, after)
    change = Change(
        baseline=0.5, candidate=0.6, effect="difference", value=0.1, low=0.05, high=0.15, p=0.01,
        verdict="improved", margin=0.05, paired=True,
    )  # fmt: skip
    row = replace(comparison.rows[0], change=change)
    write_comparison(replace(comparison, rows=(row,)), tmp_path / "c.html")
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    ((value, low, high, none, _, right),) = strips(page)
    assert low == right  # one margin
    assert value - none == pytest.approx(2 * (low - none), abs=1)
    assert high - none == pytest.approx(3 * (low - none), abs=1)


def test_a_change_without_an_interval_has_no_bar(tmp_path):
    before = [record("quality", "toys/a", {"score": score(0.5)})]
    after = [replace(before[0], run="s", metrics={"score": score(0.6)})]
    _, page = page_of(tmp_path, before, after)
    assert re.search(r'data-w="\d+ - - 500"', page)


def test_too_many_rows_are_cut_from_the_equivalent_end_and_counted(tmp_path):
    before, after = both((1.0, 1.0))
    comparison = compare(before, after)
    worst = replace(
        comparison.rows[0], change=replace(comparison.rows[0].change, verdict="regressed")
    )
    rows = (worst, *comparison.rows * (MOST_ROWS + 9))
    write_comparison(
        replace(comparison, rows=rows, overall=Estimate(1.02, 1.01, 1.03)), tmp_path / "c.html"
    )
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert page.count('<tr id="cell-') == MOST_ROWS
    assert "the 10 rows that changed least" in page
    assert "✗ 1</b> regressed" in page
    assert "1.020× [1.010, 1.030]" in page
    assert len(page.encode()) < 5e6
    data = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert json.loads(data[1])["cells"]
