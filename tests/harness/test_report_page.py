"""The report as files: safe, offline, complete, and of a bounded size."""

import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser

import pandas as pd
import pytest

from harness.record import Floor
from harness.report import Report, selfcheck_of, write_report
from harness.report.details import TOP, conditions, pairs, trace
from harness.report.doubts import flags, warnings
from harness.report.overview import MOST_FAILURES, facts, failures, headline
from harness.report.payload import as_json
from harness.report.tables import build
from harness.report.trust import told
from harness.selfcheck import FILE, Selfcheck, keep
from tests.harness.reporting import (
    CARD,
    HOSTILE,
    SPEED,
    SUITES,
    record,
    score,
    seconds,
    some_records,
)  # fmt: skip


def write(out, records, **more):
    Report(records=records, suites=SUITES, cards={"toys/plain": CARD}, title=HOSTILE, run="r",
           **more).write(out)  # fmt: skip
    return (out / "index.html").read_text(encoding="utf-8")


def data(page):
    """What the page's script reads."""
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text[1])


class Targets(HTMLParser):
    """What the elements of a page refer to."""

    def __init__(self):
        super().__init__()
        self.values = []

    def handle_starttag(self, _, attrs):
        names = {"href", "xlink:href", "src", "srcset", "action", "data", "poster"}
        self.values += [value for name, value in attrs if name in names]


def test_all_files_are_written_and_agree(tmp_path):
    write_report(some_records(), SUITES, {}, tmp_path, title="Toys", run="r")
    table = pd.read_parquet(tmp_path / "results.parquet")
    assert len(table) == len(pd.read_csv(tmp_path / "results.csv")) == 7
    assert len(pd.read_parquet(tmp_path / "samples.parquet")) == 60
    text = (tmp_path / "index.md").read_text(encoding="utf-8")
    figures = re.findall(r"\]\((figures/[^)]+)\)", text)
    assert len(figures) == 3
    assert all((tmp_path / figure).is_file() for figure in figures)


def test_page_has_every_cell_with_its_command_reason_and_card(tmp_path):
    records = some_records()
    page = write(tmp_path, records)
    cells = data(page)["cells"]
    for one in records:
        assert f'<tr id="cell-{one.cell_id}"' in page
        assert cells[one.cell_id]["commands"] == [["repeat this cell", one.command]]
        assert cells[one.cell_id].get("reason", "") == one.reason
    assert "arXiv:1234.5678" in cells[records[0].cell_id]["lead"]
    assert page.count('<span class="tag">peer</span>') == 2
    assert page.count('<span class="tag">baseline</span>') == 1


def test_tables_can_be_read_without_a_script(tmp_path):
    page = write(tmp_path, some_records())
    table = page[page.index('id="table-speed"') :]
    texts = re.sub(r"<[^>]+>", " ", table[: table.index("</table>")])
    assert re.search(r"fast\s.*\[0\.9\d+, 1\.0\d+\]\s+0\.333×", texts)
    assert "<noscript>" in page


def test_text_of_records_is_never_markup(tmp_path):
    page = write(tmp_path, some_records())
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;alert") >= 4  # title, heading, reason, why
    assert page.count("<script") == 2  # ours, and the data
    assert "<img" not in page
    assert "<script>" not in (tmp_path / "index.md").read_text(encoding="utf-8")
    assert json.loads(as_json({"log": "</script><!--"})) == {"log": "</script><!--"}
    assert "<" not in as_json({"log": "</script><!--"})


def test_page_names_no_address(tmp_path):
    page = write(tmp_path, some_records())
    assert "://" not in page.replace("http://www.w3.org/2000/svg", "")  # a name, not a place
    found = Targets()
    found.feed(page)
    assert "#main" in found.values
    assert [value for value in found.values if not value.startswith("#")] == []
    assert not re.search(r"@import|url\((?!#)", page)


def test_ids_are_unique(tmp_path):
    ids = re.findall(r'\bid="([^"]+)"', write(tmp_path, some_records()))
    assert len(ids) == len(set(ids))


def test_an_empty_run_says_so(tmp_path):
    assert "no records yet" in write(tmp_path, [])
    assert "no records yet" in (tmp_path / "index.md").read_text(encoding="utf-8")
    assert pd.read_parquet(tmp_path / "results.parquet").empty


def test_a_run_of_failures_alone_is_a_page(tmp_path):
    page = write(tmp_path, [record("speed", "toys/plain", outcome="timeout", reason="after 5 s")])
    assert "after 5 s" in page
    assert "<figure>" not in page


def test_cells_that_are_planned_and_not_recorded_are_counted(tmp_path):
    assert "<b>3</b> not recorded yet" in write(tmp_path, some_records(), missing=3)
    assert "3 not recorded yet" in (tmp_path / "index.md").read_text(encoding="utf-8")
    assert "not recorded yet" not in write(tmp_path, some_records())


CHECK = Selfcheck(
    trials=300, false_alarms=1, found={"0.02": 0.6, "0.05": 0.99}, rounds={}, rounds_at_most=200,
    smallest_found=0.05, noise=0.004, moment="2026-01-02T03:04:05Z", load=[1.5, 1, 1],
    machine_class="two cores",
)  # fmt: skip


def test_a_self_check_is_told_in_words(tmp_path):
    words = (
        "Self-check of 2026-01-02 at load 1.5 on two cores: 1 false alarm in 300 trials of equal "
        "work (0.3 %), 99 % of the differences below 0.4 %; slowdowns found: 60 % of +2 %, "
        "99 % of +5 %, reliably from +5 %."
    )
    assert words in write(tmp_path, some_records(), selfcheck=CHECK)
    assert words in (tmp_path / "index.md").read_text(encoding="utf-8")
    assert "none of them reliably" in told(replace(CHECK, smallest_found=None))


def test_a_self_check_is_of_the_run_or_else_of_its_class_of_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMATRIX_CACHE", str(tmp_path / "cache"))
    here = record("speed", "toys/a", environment={"machine_class": "two cores"})
    there = record("speed", "toys/b", environment={"machine_class": "one core"})
    assert selfcheck_of(tmp_path, [here]) is None
    keep(CHECK)
    assert selfcheck_of(tmp_path, [here]) == CHECK
    assert selfcheck_of(tmp_path, [there]) is None
    assert selfcheck_of(tmp_path, [here, there]) is None
    own = replace(CHECK, trials=7)
    (tmp_path / FILE).write_text(json.dumps(asdict(own)), encoding="utf-8")
    assert selfcheck_of(tmp_path, [there]) == own


def many(cells, metrics=1, samples=100):
    kinds = [seconds(1 + place / 50, samples) for place in range(50)]
    for i in range(cells):
        found = {f"seconds_{k}": kinds[i % 50] for k in range(metrics)}
        yield record("speed", f"toys/t{i % 50}", found, {"length": i // 50}, log_tail="a log" * 50)


def test_a_thousand_cells_of_a_hundred_samples_fit_with_their_sample_lines(tmp_path):
    page = write(tmp_path, list(many(1_000)))
    assert len(page.encode()) < 5e6
    assert "To keep this page small" not in page
    assert all("trace" in cell["metrics"][0] for cell in data(page)["cells"].values())
    assert len(pd.read_parquet(tmp_path / "samples.parquet")) == 100_000


def test_sample_lines_go_first_where_the_page_would_be_too_large(tmp_path):
    page = write(tmp_path, list(many(1_700, metrics=4)))
    assert len(page.encode()) < 5e6
    assert "it leaves out of every cell the lines of their samples" in page
    cells = data(page)["cells"]
    assert len(cells) == 1_700
    assert not any("trace" in metric for cell in cells.values() for metric in cell["metrics"])


def test_rows_that_do_not_fit_are_counted_and_in_the_table_beside(tmp_path):
    page = write(tmp_path, list(many(5_000, metrics=6, samples=3)))
    assert len(page.encode()) < 5e6
    shown = page.count('<tr id="cell-')
    assert 1_000 < shown < 5_000
    assert f"{5_000 - shown:,} rows of the tables" in page
    assert f"{5_000 - shown:,} more rows are in <code>results.csv</code>" in page
    assert pd.read_parquet(tmp_path / "results.parquet")["cell_id"].nunique() == 5_000
    lines = (tmp_path / "index.md").read_text(encoding="utf-8").count("\n")
    assert lines < 600


def test_samples_are_drawn_in_order_and_none_is_hidden():
    assert trace([1.0, 3.0, 2.0], []) == {"points": [0, TOP, 50]}
    spike = [1.0] * 5_000
    spike[2_345] = 9.0
    drawn = trace(spike, [2_500, 2_500])
    assert (len(drawn["points"]), drawn["per"], drawn["breaks"]) == (200, 2, [50.0])
    assert drawn["points"].count(TOP) == 1
    assert drawn["points"].index(TOP) // 2 == 2_345 * 100 // 5_000


def test_facts_tell_apart_what_differs():
    shared = {"memory_bytes": 2**34, "versions": {"torch": "2"}}
    machines = [{"cpu": "A", "dirty": True, **shared}, {"cpu": "B", "cores": 1, **shared}]
    cells = [record("speed", f"toys/t{i}", environment=machine, load_before=[3.0, 0, 0])
             for i, machine in enumerate(machines)]  # fmt: skip
    texts = {(fact.group, fact.name): fact.text for fact in facts(cells)}
    assert texts["", "cpu"] == "cells differ: A (1), B (1)"
    assert texts["", "memory"] == "16 GiB"
    assert texts["versions", "torch"] == "2"
    assert [text.split(":")[0] for text in warnings(cells)] == [
        "1 of 2 cells ran with uncommitted changes",
        "1 of 2 cells started on a machine with more runnable processes than cores",
        "Cells come from 2 processors",
    ]


def test_failures_are_grouped_whatever_numbers_their_reasons_hold():
    cells = [record("speed", "toys/a", setting={"n": n}, outcome="oom", reason=f"needs {n}.5 GiB")
             for n in range(5)]  # fmt: skip
    cells += [record("speed", f"toys/{n}", outcome="skipped", reason="no CUDA") for n in range(9)]
    cells += [record("speed", "toys/b", outcome="failed", reason="ValueError: n must be > 0")]
    found = [(one.outcome, one.reason, len(one.records)) for one in failures(cells)]
    assert found == [("oom", "needs 0.5 GiB", 5), ("failed", "ValueError: n must be > 0", 1),
                     ("skipped", "no CUDA", 9)]  # fmt: skip


def test_ways_to_fail_that_are_not_told_are_counted(tmp_path):
    cells = [record("speed", f"toys/t{i}", setting={"n": 7}, outcome="failed", reason="x" * i)
             for i in range(1, MOST_FAILURES + 4)]  # fmt: skip
    page = write(tmp_path, cells)
    assert "3 reasons more: each suite" in page
    assert "3 reasons more are in" in (tmp_path / "index.md").read_text(encoding="utf-8")
    assert f'<a href="#cell-{cells[0].cell_id}">toys/t1</a>' in page  # told apart, no more


def test_without_a_self_check_the_report_says_how_to_make_one(tmp_path):
    assert "llmatrix selfcheck measures" in write(tmp_path, some_records())
    assert "llmatrix selfcheck" not in write(tmp_path, [])


def test_notes_are_told_member_by_member_and_moments_as_a_span():
    notes = {"corpus": {"sha256": "ab", "documents": 61}, "peer": "", "ids": [1, 2]}
    assert pairs(notes) == [
        ["corpus sha256", "ab"], ["corpus documents", "61"], ["peer", '""'], ["ids", "[1, 2]"],
    ]  # fmt: skip
    later = replace(record("speed", "toys/a"), started="2026-01-02T03:04:05Z")
    (span,) = [one.text for one in facts([record("speed", "toys/a"), later])
               if one.name == "cells started, UTC"]  # fmt: skip
    assert span == "2026-01-01 00:00 to 2026-01-02 03:04"


def test_the_headline_names_the_best_with_its_ratio_or_its_wins():
    def told(records):
        return headline(build("speed", records, SPEED))

    assert re.fullmatch(r"seconds: fast \S+ ms, 0\.333× the baseline", told(some_records()[:3]))
    cells = [record("speed", f"toys/{name}", {"seconds": seconds(centre)}, {"n": n})
             for n in range(3) for name, centre in (("a", 1.0), ("b", 0.5 + n / 3))]  # fmt: skip
    assert told(cells) == "seconds: b in 2 of 3 settings, a in 1 of 3 settings"


@pytest.mark.parametrize(("share", "flagged"), [(0.009, False), (0.011, True), (None, False)])
def test_a_harness_that_took_a_hundredth_of_a_core_is_flagged(share, flagged):
    cell = record("speed", "toys/a", {"seconds": seconds(1)}, harness_cpu_share=share)
    assert bool(flags(cell)) == flagged
    assert bool(warnings([cell])) == flagged


def test_an_impossible_time_is_flagged_and_floors_are_told(tmp_path):
    floor = {"flops": 2e9, "bytes": 4e6, "seconds": 0.5, "mfu": 0.42, "bandwidth_share": 0.1}
    good = record(
        "speed", "toys/plain", {"seconds": seconds(1, floor=Floor(**floor, impossible=False))}
    )
    bad = record(
        "speed", "toys/fast", {"seconds": seconds(1e-3, floor=Floor(**floor, impossible=True))}
    )
    page = write(tmp_path, [good, bad])
    cells = data(page)["cells"]
    text = "MFU 42.0 %, bandwidth 10.0 %; at least 500 ms for 2 GFLOP and 3.81 MiB"
    assert cells[good.cell_id]["metrics"][0]["floor"] == text
    assert cells[bad.cell_id]["metrics"][0]["floor"] == f"{text} (impossible)"
    assert "faster than the 500 ms" in cells[bad.cell_id]["flags"][0]
    assert "flags" not in cells[good.cell_id]
    assert page.count("⚠<span") == 1
    assert page.count("<small>MFU 42.0 %</small>") == 2
    assert "1 of 2 cells report a time below" in page


def test_conditions_are_summed_up_per_round():
    cell = record("speed", "toys/a", {"score": score(1)}, relay="r1",
                  conditions={"load1": [1.0, 3.0, 2.0], "mhz": []})  # fmt: skip
    assert conditions(cell) == [
        {"name": "load1", "three": ["1", "2", "3"], "trace": {"points": [0, TOP, 50]}}
    ]
