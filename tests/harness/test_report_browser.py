"""The report in a real browser: sorted, filtered, opened by mouse, keyboard and address."""

import json
import re
from dataclasses import replace

import pytest

from harness.comparison import compare
from harness.report import write_report
from harness.report.compared import write_comparison
from tests.harness.chromium import CHROMIUM, chromium
from tests.harness.reporting import HOSTILE, SUITES, record, seconds, some_records

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

NAMES = """[...document.querySelectorAll('#table-speed tbody tr:not([hidden]) .more')]
    .map(b => b.textContent)"""
OPEN = "document.getElementById('drawer').open"
FOCUS = "document.activeElement.textContent"


@pytest.fixture(name="browser", scope="module")
def _browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(autouse=True)
def _no_complaints(browser):
    browser.complaints.clear()
    yield
    assert browser.complaints == []


@pytest.fixture(name="report", scope="module")
def _report(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    write_report(some_records(), SUITES, {}, out, title=HOSTILE, run="r")
    return out / "index.html"


def cell(technique):
    return next(r for r in some_records() if r.technique == technique and r.suite == "speed")


def test_the_address_sorts_and_filters(browser, report):
    browser.open(report, "sort=speed:seconds:up&where=speed:outcome:ok")
    assert browser.ask(NAMES) == ["fast", "rival", "plain"]
    head = "document.querySelector('#table-speed [data-key=seconds]').getAttribute('aria-sort')"
    assert browser.ask(head) == "ascending"
    assert browser.ask("document.querySelector('form[data-for=speed] output').textContent") == (
        "3 of 4 cells"
    )
    browser.open(report, "filter=speed:riv")
    assert browser.ask(NAMES) == ["rival"]
    browser.open(report, "sort=nothing:x:up&where=speed&hide=data:x&filter=:")  # of another page
    assert len(browser.ask(NAMES)) == 4


def test_a_click_sorts_and_writes_the_address(browser, report):
    browser.open(report)
    for way in ("up", "down"):
        browser.ask("document.querySelector('#table-speed [data-key=seconds] button').click()")
        assert browser.ask("location.hash") == f"#sort=speed%3Aseconds%3A{way}"
    assert browser.ask(NAMES) == ["plain", "rival", "fast", "broken"]  # no value: last either way


def test_the_drawer_opens_by_key_steps_and_gives_the_focus_back(browser, report):
    browser.open(report, "sort=speed:seconds:up")
    browser.ask("document.querySelector('#table-speed .more').focus()")
    browser.press("Enter")
    assert browser.ask(OPEN)
    assert browser.ask("document.getElementById('drawer').matches(':modal')")
    assert browser.ask("location.hash") == f"#cell-{cell('toys/fast').cell_id}"
    assert browser.ask("document.querySelector('#drawer h2').textContent").strip() == "toys/fast"
    assert browser.ask("document.querySelector('#drawer code').textContent") == (
        "llmatrix run technique=toys/fast"
    )
    assert browser.ask("document.querySelectorAll('#drawer .trace path').length") == 1
    browser.ask("document.querySelector('#drawer [aria-label=\"Next row\"]').click()")
    assert "rival" in browser.ask("document.querySelector('#drawer h2').textContent")
    browser.press("Escape")
    assert not browser.ask(OPEN)
    assert browser.becomes(FOCUS, "rival")
    assert browser.ask("location.hash") == "#sort=speed%3Aseconds%3Aup"


def test_the_focus_stays_in_the_drawer(browser, report):
    browser.open(report, f"cell-{cell('toys/fast').cell_id}")
    inside = "document.activeElement === document.body || drawer.contains(document.activeElement)"
    script = f"(() => {{ const drawer = document.getElementById('drawer'); return {inside}; }})()"
    for _ in range(12):
        browser.press("Tab")
        assert browser.ask(script)


def test_steps_through_the_rows_keep_the_focus_and_end_at_the_ends(browser, report):
    browser.open(report, "sort=speed:seconds:up")
    browser.ask("document.querySelector('#table-speed .more').focus()")
    browser.press("Enter")
    title = "document.querySelector('#drawer h2').textContent.trim()"
    pressed = "document.activeElement.getAttribute('aria-label')"
    ended = "document.querySelector('#drawer [aria-label=\"{} row\"]').ariaDisabled"
    assert browser.ask(ended.format("Previous")) == "true"
    browser.ask("document.querySelector('#drawer [aria-label=\"Next row\"]').focus()")
    for name in ("toys/peers/rival peer", "toys/plain baseline", "toys/broken", "toys/broken"):
        browser.press("Enter")
        assert browser.ask(title) == name
        assert browser.ask(pressed) == "Next row"
    assert browser.ask(ended.format("Next")) == "true"


def compared(out):
    before = [record("speed", f"toys/t{i}", {"seconds": seconds(1.0)}) for i in range(4)]
    after = [replace(one, run="s", metrics={"seconds": seconds(1.0 + 0.5 * (i == 2))})
             for i, one in enumerate(before)]  # fmt: skip
    write_comparison(compare(before, after), out / "compared.html")
    return out / "compared.html"


UNREACHED = """[...document.querySelectorAll(
    'a[href], button, input, select, summary, [tabindex="0"]')]
    .filter(one => one.checkVisibility() && !seen.has(one)).map(one => one.outerHTML)"""
BACKWARDS = """[...seen].filter((one, i, all) => i &&
    all[i - 1].compareDocumentPosition(one) & Node.DOCUMENT_POSITION_PRECEDING).length"""
AGAIN = "document.activeElement === document.body || seen.has(document.activeElement)"


@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_the_keyboard_reaches_everything_in_the_order_of_the_page(browser, report, tmp_path, kind):
    browser.open(report if kind == "report" else compared(tmp_path))
    browser.ask("window.seen = new Set()")
    for _ in range(100):
        browser.press("Tab")
        if browser.ask(AGAIN):
            break
        browser.ask("seen.add(document.activeElement)")
    assert browser.ask(UNREACHED) == []
    assert browser.ask(BACKWARDS) == 0


NAMED = {"DisclosureTriangle", "button", "checkbox", "combobox", "dialog", "heading", "image",
         "link", "navigation", "region", "searchbox", "table"}  # fmt: skip


@pytest.mark.parametrize("kind", ["report", "cell", "comparison"])
def test_a_screen_reader_is_told_what_everything_is(browser, report, tmp_path, kind):
    fragment = f"cell-{cell('toys/fast').cell_id}" if kind == "cell" else ""
    browser.open(compared(tmp_path) if kind == "comparison" else report, fragment)
    nodes = [
        (node["role"]["value"], node.get("name", {}).get("value", "").strip())
        for node in browser._call("Accessibility.getFullAXTree")["nodes"]
        if not node["ignored"]
    ]
    roles = {role for role, _ in nodes}
    assert {"button", "heading"} <= roles
    assert ("dialog" in roles) == (kind == "cell")
    assert [role for role, name in nodes if role in NAMED and not name] == []


def test_the_address_of_a_cell_opens_it_and_hostile_text_stays_text(browser, report):
    broken = cell("toys/broken")
    browser.open(report, f"cell-{broken.cell_id}")
    assert browser.ask(OPEN)
    assert HOSTILE in browser.ask("document.getElementById('drawer').textContent")
    assert browser.ask("document.querySelectorAll('#drawer img, #drawer script').length") == 0
    assert browser.ask("document.querySelector('#drawer .log').textContent") == HOSTILE


def test_copy_says_what_it_did(browser, report):
    browser.open(report, f"cell-{cell('toys/fast').cell_id}")
    browser.ask("document.querySelector('#drawer .copy').click()")
    said = "document.querySelector('#drawer .copy').textContent"
    assert browser.becomes(f"['Copied', 'Selected'].includes({said})", True)
    assert browser.becomes(said, "Copy")


def test_columns_are_hidden_and_axes_are_chosen(browser, tmp_path):
    cells = [record("speed", f"toys/{name}", {f"m{i}": seconds(1 + i) for i in range(5)}, {"n": n})
             for name in ("plain", "fast") for n in (1_000, 2_000)]  # fmt: skip
    write_report(cells, SUITES, {}, tmp_path, title="Wide", run="r")
    browser.open(tmp_path / "index.html")
    browser.ask("document.querySelector('[name=\"show m1\"]').click()")
    head = "getComputedStyle(document.querySelector('#table-speed [data-key={}]')).display"
    assert browser.ask(head.format("m1")) == "none"
    assert browser.ask(head.format("m2")) == "table-cell"
    select = "document.querySelector('form[data-for=speed] [name=n]')"
    browser.ask(f"{select}.value = '2,000'")
    browser.ask(f"{select}.dispatchEvent(new Event('input', {{ bubbles: true }}))")
    assert browser.ask(NAMES) == ["plain", "fast"]
    assert browser.ask("location.hash") == "#where=speed%3An%3A2%2C000&hide=speed%3Am1"
    address = browser.ask("location.hash.slice(1)")
    browser.open(tmp_path / "index.html", address)
    assert browser.ask(head.format("m1")) == "none"
    assert len(browser.ask(NAMES)) == 2


def test_intervals_are_drawn_inside_their_strip(browser, report):
    browser.open(report)
    boxes = json.loads(
        browser.ask("""JSON.stringify([...document.querySelectorAll(
        '#table-speed .strip')].map(strip => [strip, ...strip.children].map(part => {
            const box = part.getBoundingClientRect(); return [box.left, box.right]; })))""")
    )
    assert len(boxes) == 3
    for strip, *parts in boxes:
        assert all(strip[0] - 3 <= left <= right <= strip[1] + 3 for left, right in parts)


@pytest.mark.parametrize("width", [360, 800, 1_400])
def test_the_page_never_scrolls_sideways(browser, report, width):
    for fragment in ("", f"cell-{cell('toys/fast').cell_id}"):
        browser.open(report, fragment, width=width, height=800)
        assert browser.ask("document.documentElement.scrollWidth") <= width
        assert browser.ask("document.getElementById('drawer').scrollWidth") <= width


def test_theme_follows_the_system_until_it_is_chosen(browser, report):
    colour = "getComputedStyle(document.body).backgroundColor"
    browser.open(report, dark=True)
    dark = browser.ask(colour)
    browser.open(report)
    assert browser.ask(colour) != dark
    for _ in range(2):
        browser.ask("document.getElementById('theme').click()")
    assert browser.ask(colour) == dark
    browser.ask("document.getElementById('theme').click()")
    assert browser.ask("document.documentElement.dataset.theme") == "auto"


def test_print_has_no_controls_and_all_rows(browser, report):
    browser.open(report, media="print")
    shown = "getComputedStyle(document.querySelector('{}')).display"
    for control in ("#theme", "nav", "form.tools"):
        assert browser.ask(shown.format(control)) == "none"
    assert browser.ask("getComputedStyle(document.querySelector('.scroll')).maxHeight") == "none"


def test_without_scripts_the_tables_are_there(browser, report):
    browser.open(report, script=False)
    browser._call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.ask("document.querySelectorAll('#table-speed tbody tr').length") == 4
    assert browser.ask("document.querySelectorAll('button.more').length") == 0
    assert browser.ask("document.querySelector('noscript').textContent").startswith("Each cell")


def test_a_thousand_cells_of_a_hundred_samples_open_quickly(browser, tmp_path):
    kinds = [seconds(1 + place / 50, 100) for place in range(50)]
    cells = [record("speed", f"toys/t{i % 50}", {"seconds": kinds[i % 50]}, {"length": i // 50})
             for i in range(1_000)]  # fmt: skip
    write_report(cells, SUITES, {}, tmp_path, title="Many", run="r")
    assert (tmp_path / "index.html").stat().st_size < 5e6
    browser.open(tmp_path / "index.html", f"cell-{cells[-1].cell_id}")
    assert browser.ask(OPEN)
    assert browser.ask("performance.getEntriesByType('navigation')[0].domComplete") < 10_000
    assert browser.ask("document.querySelectorAll('.strip').length") == 1_000


def test_a_comparison_filters_by_verdict_and_shows_both_sides(browser, tmp_path):
    browser.open(compared(tmp_path), "where=verdicts:verdict:✗ regressed")
    rows = "[...document.querySelectorAll('#table-verdicts tbody tr:not([hidden]) .more')]"
    assert browser.ask(f"{rows}.map(b => b.textContent)") == ["toys/t2"]
    browser.ask(f"{rows}[0].click()")
    text = browser.ask("document.getElementById('drawer').innerText")
    assert re.search(r"Repeat the baseline\s.*Repeat the candidate\s", text, re.DOTALL)
    assert browser.ask("document.querySelectorAll('#drawer .trace').length") == 2
    bands = "getComputedStyle(document.querySelector('.strip .band')).width"
    assert float(browser.ask(bands).removesuffix("px")) > 0
