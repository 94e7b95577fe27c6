"""The report as files: safe, offline, complete, and alive in a browser."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from harness.card import Card, Metric, Suite
from harness.cell import digest
from harness.record import Quantity, Record
from harness.report import write_report
from harness.report.axes import COLOURS
from harness.report.details import HEIGHT, line
from harness.report.overview import facts, warnings
from harness.report.pareto import Point, front, pareto
from harness.report.plots import plots
from harness.report.tables import build
from harness.statistics import summarise

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>"
SPEED = Suite(
    title="Speed",
    question="Which is fastest?",
    families=("toys",),
    baseline="toys/plain",
    metrics=(Metric(name="seconds", unit="s", better="lower", kind="timing"),),
)
QUALITY = Suite(
    title="Quality",
    question="Which is best?",
    families=("toys",),
    baseline="",
    metrics=(Metric(name="score", unit="1", better="higher", kind="quality"),),
)
SUITES = {"quality": QUALITY, "speed": SPEED}
CARD = Card(cls="Plain", title="Plain", paper="arXiv:1234.5678", year=2020, summary="Does it.")


def seconds(centre, n=20):
    samples = (centre * np.random.default_rng(0).lognormal(0, 0.05, n)).tolist()
    value, low, high = summarise(samples)
    return Quantity(value=value, low=low, high=high, samples=samples,
                    unit="s", better="lower", kind="timing")  # fmt: skip


def score(value):
    return Quantity(value=value, unit="1", better="higher", kind="quality")


def record(suite, technique, metrics=None, setting=None, *, outcome="ok", **fields):
    setting = setting or {}
    defaults = {"options": {}, "environment": {}, "command": f"llmatrix run technique={technique}"}
    return Record(
        cell_id=digest([suite, technique, setting]), run="r", suite=suite, technique=technique,
        setting=setting, code="c", world=1, device="cpu", outcome=outcome, metrics=metrics or {},
        started="2026-01-01T00:00:00Z", wall_s=1.0, **defaults | fields,
    )  # fmt: skip


def some_records():
    times = {"toys/plain": 3e-3, "toys/fast": 1e-3, "toys/peers/rival": 2e-3}
    cells = [record("speed", name, {"seconds": seconds(t)}) for name, t in times.items()]
    cells += [record("quality", name, {"score": score(t * 100)}) for name, t in times.items()]
    return [*cells, record("speed", "toys/broken", outcome="failed", reason=HOSTILE,
                           log_tail=HOSTILE, options={"note": HOSTILE})]  # fmt: skip


def write(out, records):
    write_report(records, SUITES, {"toys/plain": CARD}, out, title=HOSTILE, run="r")
    return (out / "index.html").read_text(encoding="utf-8")


class Targets(HTMLParser):
    """What the elements of a page refer to."""

    def __init__(self):
        super().__init__()
        self.values = []

    def handle_starttag(self, _, attrs):
        names = {"href", "xlink:href", "src", "srcset", "action", "data", "poster"}
        self.values += [value for name, value in attrs if name in names]


def test_all_files_are_written_and_agree(tmp_path):
    write(tmp_path, some_records())
    table = pd.read_parquet(tmp_path / "results.parquet")
    assert len(table) == len(pd.read_csv(tmp_path / "results.csv")) == 7
    assert len(pd.read_parquet(tmp_path / "samples.parquet")) == 60
    text = (tmp_path / "index.md").read_text(encoding="utf-8")
    figures = re.findall(r"\]\((figures/[^)]+)\)", text)
    assert len(figures) == 3
    assert all((tmp_path / figure).is_file() for figure in figures)


def test_page_shows_every_cell_with_its_command_reason_and_card(tmp_path):
    records = some_records()
    page = write(tmp_path, records)
    for one in records:
        assert f'id="cell-{one.cell_id}"' in page
        assert f"<code>{one.command}</code>" in page
    assert "arXiv:1234.5678" in page
    assert page.count('<span class="tag">peer</span>') == 2
    assert page.count('<span class="tag">baseline</span>') == 1


def test_text_of_records_is_never_markup(tmp_path):
    page = write(tmp_path, some_records())
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;alert") >= 4  # title, heading, reason, log
    assert page.count("<script>") == 1  # ours
    assert "<img" not in page
    assert "<script>" not in (tmp_path / "index.md").read_text(encoding="utf-8")


def test_page_names_no_address(tmp_path):
    page = write(tmp_path, some_records())
    assert "://" not in page
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


def test_a_thousand_cells_of_a_hundred_samples_stay_under_five_megabytes(tmp_path):
    records = [
        record("speed", f"toys/t{i}", {"seconds": seconds(1 + i / 50, 100)}, {"length": j})
        for i in range(50)
        for j in range(20)
    ]
    write(tmp_path, records)
    assert (tmp_path / "index.html").stat().st_size < 5e6
    assert len(pd.read_parquet(tmp_path / "samples.parquet")) == 100_000


def test_figures_use_the_text_colour_and_describe_themselves():
    (figure,) = plots(build("speed", some_records()[:3], SPEED))
    assert "currentColor" in figure.inline
    assert "#010203" not in figure.inline
    assert "http" not in figure.inline
    assert f'<title id="{figure.slug}-title">seconds</title>' in figure.inline
    assert "From fast 0.9" in figure.caption
    assert "lower is better" in figure.caption
    assert ElementTree.fromstring(figure.file).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314


def test_a_numeric_axis_is_drawn_as_curves_and_many_settings_are_summed_up():
    def caption(settings):
        cells = [record("speed", "toys/plain", {"seconds": seconds(1)}, s) for s in settings]
        return plots(build("speed", cells, SPEED))[0].caption

    assert "Curves along length" in caption([{"length": 2**i} for i in range(4)])
    assert "median over 6 settings" in caption([{"data": f"d{i}"} for i in range(6)])
    assert "95 % intervals" in caption([{"data": "d0"}, {"data": "d1"}])
    seeds = caption([{"length": 2**i, "seed": seed} for i in range(3) for seed in range(3)])
    assert "Curves along length. Whiskers: range over seeds." in seeds


def test_front_respects_directions():
    a, b, c = Point("a", False, 1.0, 1.0), Point("b", False, 2.0, 2.0), Point("c", False, 2.0, 1.5)
    assert front([a, b, c], x_better="lower", y_better="higher") == [a, b]
    assert front([a, b, c], x_better="higher", y_better="higher") == [b]
    assert front([a, b, c], x_better="lower", y_better="lower") == [a]


def test_quality_finds_its_cost_in_another_suite():
    records = some_records()
    speed = build("speed", [r for r in records if r.suite == "speed"], SPEED)
    quality = build("quality", [r for r in records if r.suite == "quality"], QUALITY)
    figure = pareto(quality, [quality, speed])
    assert figure is not None
    assert "Time is from Speed" in figure.caption
    assert "Not beaten on both: plain, fast, rival" in figure.caption
    assert pareto(speed, [quality, speed]) is None


def test_samples_are_drawn_in_order_and_none_is_hidden():
    assert line([1.0, 3.0, 2.0]) == ("M0 20l2-20 2 10", 4)
    spike = [1.0] * 5_000
    spike[2_345] = 9.0
    path, width = line(spike)
    assert width == 198
    assert f" {-HEIGHT}".replace(" -", "-") in path


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
        "Cells come from 2 processors",
        "1 of 2 cells started on a machine with more runnable processes than cores",
    ]


@pytest.mark.parametrize("background", ["#fcfcfb", "#15171a"])
def test_colours_stand_out_in_light_and_dark(background):
    def luminance(colour):
        channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return linear @ [0.2126, 0.7152, 0.0722]

    for colour in COLOURS:
        low, high = sorted((luminance(colour), luminance(background)))
        assert (high + 0.05) / (low + 0.05) >= 3  # WCAG 1.4.11, graphical objects


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


def browse(page, fragment, profile):
    """The page's document after its script ran, and what the console said."""
    quiet = ("background-networking", "component-update", "sync", "quic", "gpu", "extensions")
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--no-first-run", "--enable-logging=stderr",
         *(f"--disable-{feature}" for feature in quiet), f"--user-data-dir={profile}",
         "--window-size=500,800", "--dump-dom", f"{page.as_uri()}#{fragment}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, [text for text in done.stderr.splitlines() if "CONSOLE" in text]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_address_sorts_filters_and_opens_without_console_messages(tmp_path):
    records = some_records()
    write(tmp_path / "report", records)
    page = tmp_path / "report" / "index.html"
    dom, console = browse(page, "sort=speed:seconds:down&filter=speed:toys", tmp_path / "profile")
    assert console == []
    assert "0 of 4 cells" in dom  # the family is not part of a row's text
    dom, console = browse(page, "sort=speed:seconds:up&outcome=speed:ok", tmp_path / "profile")
    assert console == []
    table = dom[dom.index('id="table-speed"') :]
    assert re.findall(r'class="more"[^>]*>(\w+)</button>', table) == [
        "fast", "rival", "plain", "broken",
    ]  # fmt: skip
    assert re.search(r'data-key="seconds" aria-sort="ascending"', table)
    assert "3 of 4 cells" in dom
    broken = next(one for one in records if one.outcome == "failed")
    dom, console = browse(page, f"cell-{broken.cell_id}", tmp_path / "profile")
    assert console == []
    assert re.search(rf'aria-controls="detail-{broken.cell_id}" aria-expanded="true"', dom)
    assert dom[dom.index("<main") :].count('aria-expanded="true"') == 1


CLICKS = """<script>
const table = document.getElementById("table-speed");
table.querySelector('[data-key="seconds"] button').click();
table.querySelector('[data-key="seconds"] button').click();
table.querySelector("button.more").click();
document.getElementById("theme").click();
table.style.width = "3000px";
document.title = location.hash + " " + document.documentElement.scrollWidth + "/" + innerWidth;
</script>"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_clicks_sort_expand_switch_the_theme_and_write_the_address(tmp_path):
    page = tmp_path / "clicked.html"
    page.write_text(write(tmp_path, some_records()) + CLICKS, encoding="utf-8")
    dom, console = browse(page, "", tmp_path / "profile")
    assert console == []
    title = re.search(r"<title>#sort=speed%3Aseconds%3Adown (\d+)/(\d+)</title>", dom)
    assert title is not None
    assert int(title[1]) <= int(title[2])  # wide tables scroll in themselves, not with the page
    assert 'data-theme="light"' in dom
    names = re.findall(
        r'class="more"[^>]*aria-expanded="(\w+)">(\w+)', dom[dom.index("table-speed") :]
    )
    assert names == [("true", "plain"), ("false", "rival"), ("false", "fast"), ("false", "broken")]
