"""Frames and tables: every cell is there, the best is marked, ratios refer to the baseline."""

from dataclasses import replace

import pandas as pd
import pytest

from harness.card import Metric, Suite
from harness.cell import digest
from harness.record import Floor, Quantity, Record
from harness.report import frame, sample_frame
from harness.report.markdown import MOST_LINES, markdown
from harness.report.quantities import brief, digits, quantity, ratio_text, scale
from harness.report.tables import build
from harness.statistics import Estimate, summarise

SUITE = Suite(
    title="Speed",
    question="Which is fastest?",
    families=("toys",),
    baseline="toys/plain",
    metrics=(
        Metric(name="seconds", unit="s", better="lower", kind="timing"),
        Metric(name="score", unit="1", better="higher", kind="quality"),
        Metric(name="size", unit="B", better="neither", kind="count"),
    ),
)


def sampled(samples, unit="s", better="lower", kind="timing"):
    value, low, high = summarise(samples)
    return Quantity(
        value=value, low=low, high=high, samples=samples, unit=unit, better=better, kind=kind
    )


def number(value, unit="1", better="higher", kind="quality"):
    return Quantity(value=value, unit=unit, better=better, kind=kind)


def record(technique, metrics=None, *, setting=None, options=None, outcome="ok", **fields):
    setting, options = setting or {}, options or {}
    return Record(
        cell_id=digest([technique, setting, options]), run="r", suite="speed",
        technique=technique, options=options, setting=setting, code="c", world=1, device="cpu",
        command="llmatrix run", outcome=outcome, metrics=metrics or {},
        started="2026-01-01T00:00:00Z", wall_s=1.0, **fields,
    )  # fmt: skip


def entries(table, metric):
    return {row.name: row.entries.get(metric) for row in table.rows}


def test_frame_has_a_row_per_metric_and_one_for_a_failure():
    table = frame(
        [
            record("toys/plain", {"seconds": sampled([1.0, 2.0, 3.0]), "score": number(0.5)}),
            record("toys/broken", outcome="oom", reason="needs 3 GiB"),
        ]
    )
    assert table["metric"].tolist()[:2] == ["seconds", "score"]
    assert table["n"].tolist()[:2] == [3, 1]
    failure = table.iloc[2]
    assert (failure["outcome"], failure["reason"]) == ("oom", "needs 3 GiB")
    assert pd.isna(failure["metric"])
    assert pd.isna(failure["value"])


def test_axes_and_options_are_typed_columns_and_mixed_ones_are_json(tmp_path):
    table = frame(
        [
            record("toys/a", setting={"length": 8, "data": "en", "seed": 1}, options={"rank": 4}),
            record("toys/b", setting={"length": 16, "data": ["en", "de"], "seed": 2**64}),
        ]
    )
    assert table["setting.length"].tolist() == [8, 16]
    assert table["setting.length"].dtype == "Int64"
    assert table["setting.data"].tolist() == ["en", '["en", "de"]']
    assert table["setting.seed"].tolist() == ["1", str(2**64)]  # wider than any integer column
    assert table["option.rank"].isna().tolist() == [False, True]
    table.to_parquet(tmp_path / "results.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "results.parquet"), table)


def test_sample_frame_keeps_every_sample_in_order():
    plain = record("toys/plain", {"seconds": sampled([3.0, 1.0, 2.0]), "score": number(1.0)})
    table = sample_frame([plain, record("toys/broken", outcome="crashed")])
    assert table["sample"].tolist() == [3.0, 1.0, 2.0]
    assert table["index"].tolist() == [0, 1, 2]
    assert set(table["metric"]) == {"seconds"}


def test_no_records_give_empty_frames():
    assert frame([]).empty
    assert sample_frame([]).empty


def test_best_follows_the_direction_within_each_setting():
    def cell(technique, length, seconds, score):
        metrics = {"seconds": number(seconds, "s", "lower", "timing"), "score": number(score)}
        return record(technique, metrics | {"size": number(1, "B", "neither")},
                      setting={"length": length})  # fmt: skip

    table = build("speed", [
        cell("toys/plain", 1, 2.0, 0.5), cell("toys/fast", 1, 1.0, 0.4),
        cell("toys/plain", 2, 3.0, 0.6), cell("toys/fast", 2, 4.0, 0.7),
    ], SUITE)  # fmt: skip
    marks = [
        (row.axes["length"], row.name, metric)
        for row in table.rows
        for metric, entry in row.entries.items()
        if entry.mark == "best"
    ]
    assert marks == [(1, "plain", "score"), (1, "fast", "seconds"),
                     (2, "plain", "seconds"), (2, "fast", "score")]  # fmt: skip


def test_a_rival_whose_interval_overlaps_the_best_is_tied_and_a_lone_cell_is_unmarked():
    near, far = [1.0, 1.1, 1.2], [1.15, 1.16, 1.3]
    cells = [record("toys/a", {"seconds": sampled(near)}),
             record("toys/b", {"seconds": sampled(far)}),
             record("toys/c", {"seconds": sampled([5.0, 5.0, 5.0])})]  # fmt: skip
    marks = {name: e.mark for name, e in entries(build("speed", cells, SUITE), "seconds").items()}
    assert marks == {"a": "best", "b": "tied", "c": ""}
    alone = build("speed", cells[:1], SUITE)
    assert entries(alone, "seconds")["a"].mark == ""


def test_ratio_refers_to_the_baseline_of_the_same_setting():
    cells = [
        record("toys/plain", {"seconds": number(2.0, "s", "lower")}, setting={"length": 1}),
        record("toys/slow", {"seconds": number(5.0, "s", "lower")}, setting={"length": 1}),
        record("toys/slow", {"seconds": number(7.0, "s", "lower")}, setting={"length": 2}),
    ]
    rows = build("speed", cells, SUITE).rows
    assert [row.entries["seconds"].ratio for row in rows] == [None, Estimate(2.5, None, None), None]
    assert [row.is_baseline for row in rows] == [True, False, False]


@pytest.mark.parametrize(
    ("better", "centre", "advantage"),
    [("lower", 0.5, "better"), ("lower", 2.0, "worse"), ("lower", 1.0, ""),
     ("higher", 2.0, "better"), ("higher", 0.5, "worse")],
)  # fmt: skip
def test_advantage_needs_the_interval_on_one_side_of_the_baseline(better, centre, advantage):
    baseline = [0.9, 1.0, 1.0, 1.0, 1.1]
    cells = [
        record("toys/plain", {"x": sampled(baseline, better=better)}),
        record("toys/other", {"x": sampled([centre * x for x in baseline], better=better)}),
    ]
    other = entries(build("speed", cells, SUITE), "x")["other"]
    assert other.advantage == advantage
    assert other.ratio.low <= centre <= other.ratio.high


def test_cells_of_one_relay_are_compared_round_by_round():
    noise = [1.0, 5.0, 1.1, 3.0, 1.2, 4.0, 1.3, 2.0] * 3  # of the machine, hence of both
    base, other = sampled(noise), sampled([1.2 * x for x in noise])

    def width(*relays):
        cells = [record("toys/plain", {"seconds": base}, relay=relays[0]),
                 record("toys/slow", {"seconds": other}, relay=relays[1])]  # fmt: skip
        ratio = entries(build("speed", cells, SUITE), "seconds")["slow"].ratio
        assert ratio.value == pytest.approx(1.2)
        return ratio.high / ratio.low

    assert width("r1", "r1") < 1.01
    assert width("r1", "r2") > 1.5
    assert width("", "") > 1.5


def test_frames_have_floors_relays_and_generations():
    floor = Floor(flops=1.0, bytes=1.0, seconds=0.1, mfu=0.4, bandwidth_share=0.2, impossible=False)
    seconds = replace(sampled([3.0, 1.0, 2.0]), floor=floor, generations=[1, 2])
    metrics = {"seconds": seconds, "score": number(1.0)}
    cells = [record("toys/plain", metrics, relay="r1", harness_cpu_share=0.001)]
    table = frame(cells)
    assert table["floor_mfu"].isna().tolist() == [False, True]
    assert table.loc[0, ["floor_mfu", "bandwidth_share", "harness_cpu_share"]].tolist() == [
        0.4, 0.2, 0.001,
    ]  # fmt: skip
    assert table["relay"].tolist() == ["r1", "r1"]
    assert sample_frame(cells)["generation"].tolist() == [0, 1, 1]
    assert sample_frame([record("toys/plain", {"seconds": sampled([1.0, 2.0])})])[
        "generation"
    ].tolist() == [0, 0]


def test_markdown_is_cut_where_a_forge_would_not_render_it():
    cells = [record("toys/plain", {"score": number(1.0)}, setting={"n": n}) for n in range(450)]
    lines = markdown(build("speed", cells, SUITE)).splitlines()
    assert len(lines) == 2 + MOST_LINES + 2
    assert lines[-1] == "… and 50 more rows in `results.csv`."


def test_quantities_that_are_not_positive_have_no_ratio():
    for base, other in ((0.0, 1.0), (-1.0, 1.0), (1.0, -1.0)):
        cells = [record("toys/plain", {"x": number(base)}),
                 record("toys/other", {"x": number(other)})]  # fmt: skip
        assert entries(build("speed", cells, SUITE), "x")["other"].ratio is None


def test_only_varying_axes_and_options_are_columns():
    cells = [
        record("toys/a", setting={"length": n, "seed": 0}, options={"rank": r, "alpha": 16})
        for n in (10, 9)
        for r in (4, 8)
    ]
    table = build("speed", cells, SUITE)
    assert table.axes == ("length", "rank")
    assert table.fixed == {"seed": 0, "device": "cpu"}
    assert [tuple(row.axes.values()) for row in table.rows] == [(9, 4), (9, 8), (10, 4), (10, 8)]
    assert not table.has_options


def test_an_option_of_few_techniques_is_told_beside_them():
    cells = [record("toys/a", options={"rank": r}) for r in (4, 8)]
    cells += [record("toys/b"), record("toys/c")]
    table = build("speed", cells, SUITE)
    assert table.axes == ()
    assert [row.options for row in table.rows] == [{"rank": 4}, {"rank": 8}, {}, {}]


def test_techniques_meet_at_the_same_values_of_the_options_they_share():
    def cell(name, bits, value):
        return record(f"toys/{name}", {"score": number(value)}, options={"bits": bits})

    cells = [cell("plain", 2, 1.0), cell("plain", 4, 2.0), cell("other", 2, 3.0),
             cell("other", 4, 5.0)]  # fmt: skip
    rows = build("speed", cells, SUITE).rows
    found = {(row.name, row.axes["bits"]): row.entries["score"] for row in rows}
    assert found["other", 4].ratio == Estimate(2.5, None, None)
    assert found["other", 2].ratio == Estimate(3.0, None, None)
    assert found["plain", 4].ratio is None
    assert {key for key, entry in found.items() if entry.mark == "best"} == {
        ("other", 2), ("other", 4),
    }  # fmt: skip


def test_a_baseline_without_the_shared_options_stands_beside_them_all():
    cells = [record("toys/plain", {"score": number(2.0)})]
    cells += [record(f"toys/{name}", {"score": number(bits)}, options={"bits": bits})
              for name in ("a", "b") for bits in (2, 4)]  # fmt: skip
    rows = build("speed", cells, SUITE).rows
    ratios = {(row.name, row.axes["bits"]): row.entries["score"].ratio for row in rows}
    assert ratios["a", 4] == ratios["b", 4] == Estimate(2.0, None, None)
    assert ratios["plain", None] is None


def test_the_options_of_one_technique_are_rivals():
    cells = [record("toys/a", {"score": number(r)}, options={"rank": r}) for r in (4, 8)]
    marks = [row.entries["score"].mark for row in build("speed", cells, SUITE).rows]
    assert marks == ["", "best"]


def test_an_option_that_an_axis_gave_is_not_told_twice():
    cells = [record("toys/a", setting={"seed": n}, options={"seed": n, "rank": n}) for n in (0, 1)]
    rows = build("speed", cells, SUITE).rows
    assert [row.axes for row in rows] == [{"seed": 0, "rank": 0}, {"seed": 1, "rank": 1}]
    assert not any(row.options for row in rows)


def test_a_metric_that_nothing_was_measured_of_has_no_column():
    cells = [record("toys/plain", {"score": number(1.0), "seconds": number(None, "s")})]
    assert [metric.name for metric in build("speed", cells, SUITE).metrics] == ["score"]


def test_names_are_as_short_as_they_can_be():
    cells = [record(name) for name in ("a/lora", "a/peers/lora", "a/alibi", "b/alibi", "a/nope")]
    names = [row.name for row in build("speed", cells, SUITE).rows]
    assert names == ["a/lora", "peers/lora", "a/alibi", "b/alibi", "nope"]


def test_a_suite_without_a_header_is_shown_from_its_records():
    table = build("speed", [record("toys/a", {"x": number(1.0)})], None)
    assert table.suite.title == "speed"
    assert [metric.name for metric in table.metrics] == ["x"]


def test_markdown_marks_peers_and_escapes_reasons():
    text = markdown(
        build(
            "speed",
            [record("toys/plain", {"seconds": number(0.002, "s", "lower")}),
             record("toys/peers/rival", {"seconds": number(0.003, "s", "lower")}),
             record("toys/broken", outcome="failed", reason="<script>a|b</script>\nnext")],
            SUITE,
        )
    )  # fmt: skip
    assert "rival (peer)" in text
    assert "plain (baseline)" in text
    assert "3 (1.50×)" in text
    assert "failed: &lt;script>a\\|b&lt;/script> next" in text
    assert len({line.count("|") - line.count("\\|") for line in text.splitlines()}) == 1


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [("s", 0.00123, "1.23 ms"), ("s", 90.0, "90 s"), ("s", 3e-8, "30 ns"), ("B", 3072.0, "3 KiB"),
     ("bytes/s", 2.5e6, "2.50 MB/s"), ("1", 0.123456, "0.123"), ("1", 12345.0, "12,345"),
     ("1", -2.0, "−2"), ("1", 0.0, "0"), ("1", 1.5e-7, "1.50e−7")],
)  # fmt: skip
def test_quantities_read_well(unit, value, text):
    assert quantity(unit, value) == text


@pytest.mark.parametrize(
    ("value", "plain", "shortest"),
    [(0.00052, "0.00052", "5.2e−4"), (0.038, "0.038", "0.038"), (12_000_000, "12,000,000", "1.2e7"),
     (2.5, "2.5", "2.5"), (100.0, "100", "100"), (-3e-6, "−3e−6", "−3e−6"), (0.0, "0", "0")],
)  # fmt: skip
def test_numbers_in_figures_are_no_longer_than_they_must_be(value, plain, shortest):
    assert (digits(value, 3), brief(value, 2)) == (plain, shortest)


def test_digits_follow_the_interval_and_the_prefix_the_column():
    column = scale("s", [0.01, 0.02, 5.0])
    assert column.unit == "ms"
    estimate = Estimate(0.0123456, 0.0121, 0.0125)
    assert (column.text(estimate), column.interval(estimate)) == ("12.35", "[12.10, 12.50]")
    assert ratio_text(Estimate(0.62547, None, None)) == "0.625×"
