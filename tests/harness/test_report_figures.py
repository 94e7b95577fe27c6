"""Figures: the right kind for the axes, true slopes, words for those who cannot see them."""

import re
from dataclasses import replace
from itertools import product
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.card import Metric, Suite
from harness.cell import digest
from harness.record import Quantity
from harness.report.axes import COLOURS, LETTER, short
from harness.report.curves import MAX_CURVES, best_slice, slope
from harness.report.heat import surfaces
from harness.report.pareto import pareto
from harness.report.plots import plots
from harness.report.series import essential
from harness.report.strips import strips
from harness.report.tables import build
from harness.report.tradeoff import Point, front, tradeoffs
from tests.harness.reporting import QUALITY, SPEED, record, score, seconds, some_records


def speed(cells):
    """A table of (technique, setting, seconds)."""
    return build("speed", [record("speed", f"toys/{name}", {"seconds": seconds(centre)}, setting)
                           for name, setting, centre in cells], SPEED)  # fmt: skip


def caption(cells):
    return plots(speed(cells))[0].caption


def test_figures_use_the_text_colour_and_describe_themselves():
    (figure,) = plots(build("speed", some_records()[:3], SPEED))
    assert "currentColor" in figure.inline
    assert "#010203" not in figure.inline
    assert "http" not in figure.inline
    assert "font-family" not in figure.inline  # the page's own
    assert f'<title id="{figure.slug}-title">seconds</title>' in figure.inline
    assert "From fast 0.9" in figure.caption
    assert "lower is better" in figure.caption
    assert ElementTree.fromstring(figure.file).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314


def texts(figure):
    """The words and numbers of a figure."""
    root = ElementTree.fromstring(figure.file)  # noqa: S314
    return ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]


def test_words_and_numbers_of_a_figure_stay_whole():
    name = 'v1.23456 id="7" #010203'
    (figure,) = plots(speed([(name, {}, 1.0), ("b", {}, 1.001)]))
    assert name in texts(figure)
    assert not re.search(r"<[^>]*\d\.\d{3}", figure.inline)  # the drawing itself is cut


LONG = "a_technique_whose_name_goes_on_" * 9


@pytest.mark.parametrize("axes", [{}, {"n": (1, 2, 4)}, {"n": (1, 2, 4), "m": (1, 2)},
                                  {"data": tuple(f"{LONG}{i}" for i in range(6))},
                                  {"data": tuple(f"{LONG}{i}" for i in range(3))},
                                  {LONG: ("语料", "Ж\n\x07", "العربية")}])  # fmt: skip
def test_names_of_any_length_and_script_are_drawn_inside_the_figure(axes):
    settings = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    cells = [(f"语{name}{LONG}", setting, 1.0 + place + len(name))
             for name in ("", "b") for place, setting in enumerate(settings)]  # fmt: skip
    for figure in plots(speed(cells)):
        names = [text for text in texts(figure) if "technique" in text]
        assert names
        assert all(len(name) * LETTER < 0.5 * 540 for name in names)
        assert any("…" in name for name in names)


def test_a_long_text_keeps_both_ends():
    assert short("abcdefghij", 5 * LETTER) == "ab…ij"
    assert short("abcdefghij", 10 * LETTER) == "abcdefghij"
    assert short("a\nb") == "a b"


def test_curves_along_a_numeric_axis_tell_how_the_cost_grows():
    cells = [("plain", {"length": n}, 1e-6 * n**2) for n in (128, 256, 512, 1024)]
    cells += [("fast", {"length": n}, 1e-4 * n) for n in (128, 256, 512, 1024)]
    (figure,) = plots(speed(cells))
    assert figure.title == "seconds along length"
    assert "Curves along length. ^s: grows with length to the power s." in figure.caption
    assert "plain ^2.00" in figure.inline
    assert "fast ^1.00" in figure.inline


def test_slopes_need_three_places_and_positive_values():
    assert slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert slope([1, 2, 4, 4], [1, 0.5, 0.25, 0.25]) == pytest.approx(-1)
    assert slope([1, 2, 2], [1, 2, 3]) is None
    assert slope([1, 2, 4], [1, 0, 1]) is None
    assert slope([0, 2, 4], [1, 1, 1]) is None


def test_an_axis_that_starts_at_zero_has_curves_without_slopes():
    text = caption([("plain", {"layer": n}, 1 + n) for n in range(4)])
    assert "Curves along layer." in text
    assert "power" not in text


def test_with_other_axes_the_curve_is_of_their_commonest_values():
    cells = [("plain", {"length": n, "dtype": "float32"}, n) for n in (128, 256, 512)]
    cells += [("plain", {"length": 128, "dtype": "bfloat16"}, 1.0)]
    assert "Curves along length at dtype float32." in caption(cells)
    piece = best_slice(speed(cells))
    assert [row.axes["length"] for row in piece.table.rows] == [128, 256, 512]


def test_many_curves_are_cut_to_the_best_at_the_end():
    cells = [(f"t{i:02}", {"n": 2**n}, (1 + i) * 2**n) for i in range(20) for n in range(3)]
    (figure,) = plots(speed(cells))
    assert f"The {MAX_CURVES} of 20 best at its end." in figure.caption
    assert "t11 ^1" in figure.inline
    assert "t12 ^1" not in figure.inline


def test_seeds_become_whiskers():
    cells = [record("speed", "toys/plain", {"seconds": seconds(2**n + s)}, {"n": 2**n, "seed": s})
             for n in range(3) for s in range(3)]  # fmt: skip
    (figure,) = plots(build("speed", cells, SPEED))
    assert "Whiskers: range over seeds." in figure.caption


def test_many_settings_become_a_heat_map_and_few_become_bars():
    def of(count):
        return [(name, {"data": f"d{i}"}, 1.0 + i + k) for i in range(count)
                for k, name in enumerate(("plain", "fast"))]  # fmt: skip

    assert "Brighter: better within a column" in caption(of(6))
    bars = caption(of(4))
    assert "Brighter" not in bars
    assert "95 % intervals" in bars


def test_a_heat_map_ranks_within_each_setting():
    cells = [("slow", {"data": f"d{i}"}, 10.0**i * 2) for i in range(6)]
    cells += [("fast", {"data": f"d{i}"}, 10.0**i) for i in range(6)]
    (figure,) = plots(speed(cells))
    assert figure.inline.index(">fast<") < figure.inline.index(">slow<")


def over_two_axes(techniques=("rtn", "gptq"), bits=(2, 3, 4, 8), groups=(32, 64)):
    return [(name, {"bits": b, "group": g}, 4.0**-b * g * (1 + place))
            for place, name in enumerate(techniques) for b in bits for g in groups]  # fmt: skip


def test_a_suite_over_two_axes_has_a_map_of_both_beside_its_curves():
    curve, heat = plots(speed(over_two_axes()))
    assert (curve.title, heat.title) == ("seconds along bits", "seconds over bits and group")
    assert curve.slug != heat.slug
    assert "Down: bits; across: group. Brighter: better, in the same colours" in heat.caption
    assert {"rtn", "gptq", "bits", "group", "2", "8", "32", "64"} <= set(texts(heat))


def test_maps_hold_the_other_axes_and_sort_their_own():
    cells = [(name, {**setting, "layer": layer}, value) for name, setting, value in over_two_axes()
             for layer in ("up", "down") if layer == "up" or setting["bits"] > 2]  # fmt: skip
    found = surfaces(speed(list(reversed(cells))), SPEED.metrics[0])
    assert (found.down, found.across, found.rest) == ("bits", "group", "layer up")
    assert (found.rows, found.columns) == (("2", "3", "4", "8"), ("32", "64"))
    value = speed(cells).scales["seconds"]
    assert value.factor * found.values["gptq"][1, 0] == pytest.approx(4.0**-3 * 64, rel=0.1)


def test_options_that_most_techniques_vary_are_axes():
    def cell(name, options):
        found = record("speed", f"toys/{name}", {"seconds": seconds(options.get("bits", 3))}, {})
        return replace(found, options=options, cell_id=digest([name, options]))

    cells = [cell(name, {"bits": b, "group": g}) for name in ("rtn", "gptq")
             for b in (2, 4, 8) for g in (32, 64)]  # fmt: skip
    table = build("speed", [*cells, cell("none", {})], SPEED)
    curve, heat = plots(table)
    assert heat.title == "seconds over bits and group"
    assert "Left out, measured too seldom: none." in heat.caption
    assert curve.title == "seconds along bits"
    alone = [cell("rtn", {"bits": b}) for b in (2, 4, 8)] + [cell("a", {}), cell("b", {})]
    assert build("speed", alone, SPEED).axes == ()


def test_a_map_of_few_of_the_techniques_is_not_drawn():
    rest = [(f"t{i}", {"bits": 2, "group": 32}, 1.0 + i) for i in range(8)]
    assert surfaces(speed(over_two_axes() + rest[:6]), SPEED.metrics[0])
    assert not surfaces(speed(over_two_axes() + rest), SPEED.metrics[0])


def test_numbers_that_follow_from_other_axes_are_no_axes_of_figures():
    cells = [("plain", {"n": n, "rounds": 100 // n, "dtype": d}, n)
             for n in (1, 2, 4) for d in ("float32", "bfloat16")]  # fmt: skip
    assert essential(speed(cells)).axes == ("n", "dtype")
    text = caption(cells)
    assert "Curves along n at dtype" in text
    assert "Set with the other axes: rounds." in text
    apart = [("plain", {"n": 1, "dtype": "float32"}, 1), ("fast", {"n": 2, "dtype": "int8"}, 2)]
    assert {"1, float32", "2, int8"} <= set(texts(plots(speed(apart))[0]))  # not dtypes alone


def test_curves_of_few_techniques_do_not_replace_the_bars_of_all():
    cells = [(f"t{i}", {"n": 1}, 1.0 + i) for i in range(8)]
    cells += [("t0", {"n": n}, 2.0 * n) for n in (2, 4)]
    bars, curve = plots(speed(cells))
    assert bars.title == "seconds"
    assert "Left out, measured too seldom: t1, t2, t3" in curve.caption


def test_values_that_are_close_are_dots_on_an_axis_without_zero():
    near, far = (plots(speed([("a", {}, 1.0), ("b", {}, end)]))[0] for end in (1.01, 3.0))
    assert "0" in texts(far)
    assert "0" not in texts(near)


def test_settings_with_few_techniques_do_not_mix_with_those_of_many():
    cells = [(f"t{i}", {"data": "all"}, 1.0 + i) for i in range(8)]
    cells += [("t0", {"data": f"d{i}"}, 99.0) for i in range(6)]
    text = caption(cells)
    assert "At data all, the one of 7 settings with most techniques." in text
    assert "to t7 8" in text.replace("7.9", "8")


def test_a_metric_that_is_the_same_for_all_is_not_drawn():
    cells = [record("quality", f"toys/{name}", {"score": score(1.0)}) for name in "ab"]
    assert plots(build("quality", cells, QUALITY)) == []


def test_front_respects_directions():
    a, b, c = (Point(n, "", False, x, y) for n, x, y in (("a", 1, 1), ("b", 2, 2), ("c", 2, 1.5)))
    assert front([a, b, c], "lower", "higher") == [a, b]
    assert front([a, b, c], "higher", "higher") == [b]
    assert front([a, b, c], "lower", "lower") == [a]


def test_quality_finds_its_cost_in_another_suite():
    records = some_records()
    table = build("speed", [r for r in records if r.suite == "speed"], SPEED)
    quality = build("quality", [r for r in records if r.suite == "quality"], QUALITY)
    (figure,) = pareto(quality, [quality, table])
    assert "seconds is from Speed." in figure.caption
    assert "Not beaten on both: plain, fast, rival" in figure.caption
    assert pareto(table, [quality, table]) == []


def test_an_option_of_one_suite_is_joined_with_the_setting_of_the_other():
    good, cost = [
        [replace(record(suite, f"toys/{name}", metrics(k, n), {"n": n} if suite == "speed" else {}),
                 options={"n": n}, cell_id=digest([suite, name, n]))
         for k, name in enumerate("ab", 1) for n in (1, 2, 4)]
        for suite, metrics in (("quality", lambda k, n: {"score": score(k * n)}),
                               ("speed", lambda k, n: {"seconds": seconds(k * n)}))
    ]  # fmt: skip
    quality, speeds = build("quality", good, QUALITY), build("speed", cost, SPEED)
    (found,) = tradeoffs(quality, [quality, speeds])
    assert len(found.points) == 6


TRADED = Suite(
    title="Traded", question="What does it cost?", families=("toys",), baseline="",
    metrics=(
        Metric(name="loss", unit="1", better="lower", kind="error"),
        Metric(name="size", unit="bit/parameter", better="lower", kind="count"),
        Metric(name="peak", unit="B", better="lower", kind="memory"),
        Metric(name="steps", unit="1", better="lower", kind="count"),
    ),
)  # fmt: skip


def traded(cells):
    """A table of (technique, setting, loss, metric of the cost, its value or None)."""
    metrics = {metric.name: metric for metric in TRADED.metrics}

    def quantity(name, value):
        metric = metrics[name]
        return Quantity(value=value, unit=metric.unit, better=metric.better, kind=metric.kind)

    records = [
        record("traded", f"toys/{name}",
               {"loss": quantity("loss", loss)} | ({cost: quantity(cost, v)} if v else {}), setting)
        for name, setting, loss, cost, v in cells
    ]  # fmt: skip
    return build("traded", records, TRADED)


@pytest.mark.parametrize(("cost", "drawn"), [("size", True), ("peak", True), ("steps", False)])
def test_bytes_and_bits_are_costs_and_other_counts_are_not(cost, drawn):
    table = traded(
        [("a", {}, 0.1, cost, 8.0), ("b", {}, 0.2, cost, 4.0), ("c", {}, 0.3, cost, 6.0)]
    )
    found = list(tradeoffs(table, [table]))
    assert [one.across.metric.name for one in found] == [cost] * drawn
    if drawn:
        assert [point.label for point in found[0].best] == ["a", "b"]


def test_a_tradeoff_says_who_is_left_out_and_why():
    cells = [(name, {"data": d}, 0.1 * k, "size", 9.0 - k)
             for k, name in enumerate("abcd", 1) for d in ("en", "de")]  # fmt: skip
    cells = [*cells[:-1], ("free", {"data": "en"}, 0.5, "size", None)]
    table = traded(cells)
    (figure,) = pareto(table, [table])
    assert "Medians over data." in figure.caption
    assert "Left out, not in every setting: d." in figure.caption
    assert "Left out, no size: free." in figure.caption


def test_an_axis_along_which_quality_is_bought_is_drawn_and_not_averaged_away():
    cells = [(name, {"bits": b, "data": d}, 2.0**-b * (1 + k) * len(d), "size", b + k)
             for k, name in enumerate(("gptq", "rtn")) for b in (2, 3, 4)
             for d in ("en", "den")]  # fmt: skip
    (found,) = tradeoffs(table := traded(cells), [table])
    assert (found.knobs, found.pooled) == (("bits",), ("data",))
    assert len(found.points) == 6
    assert [point.label for point in found.best] == ["gptq 2", "gptq 3", "gptq 4"]
    worse = [(name, {"n": n}, n * (1 + k), "size", n * (2 - k))
             for k, name in enumerate("ab") for n in (1, 2, 4)]  # fmt: skip
    (found,) = tradeoffs(table := traded(worse), [table])
    assert (found.knobs, len(found.points)) == ((), 2)  # larger n is harder, not better


def test_names_that_would_hide_each_other_are_left_away():
    cells = [(f"technique_{i}", {}, 0.1 + 1e-9 * i, "size", 5.0 - 1e-9 * i) for i in range(30)]
    (figure,) = pareto(table := traded([*cells, ("far", {}, 0.2, "size", 9.0)]), [table])
    named = [text for text in texts(figure) if text.startswith("technique")]
    assert 1 <= len(named) <= 8
    assert "far" in texts(figure)
    assert "and 22 more" in figure.caption


def test_strips_place_values_and_intervals_in_their_column():
    table = speed([("plain", {}, 1.0), ("fast", {}, 1e-3)])
    found = {row.name: strips(table)["seconds"][row.record.cell_id].split() for row in table.rows}
    value, low, high, baseline = found["plain"]
    assert (high, baseline) == ("1000", "-")  # the baseline has no ratio to itself
    assert int(low) < int(value) < 1000
    assert found["fast"][1] == "0"
    assert found["fast"][3] == value  # where the baseline lies
    assert strips(speed([("plain", {}, 1.0)]))["seconds"] == {}


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
