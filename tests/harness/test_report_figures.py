"""Figures: the right kind for the axes, true slopes, words for those who cannot see them."""

from xml.etree import ElementTree

import numpy as np
import pytest

from harness.report.axes import COLOURS
from harness.report.curves import MAX_CURVES, best_slice, slope
from harness.report.heat import grid
from harness.report.pareto import Point, front, pareto
from harness.report.plots import plots
from harness.report.series import series
from harness.report.strips import strips
from harness.report.tables import build
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
    assert f'<title id="{figure.slug}-title">seconds</title>' in figure.inline
    assert "From fast 0.9" in figure.caption
    assert "lower is better" in figure.caption
    assert ElementTree.fromstring(figure.file).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314


def test_curves_along_a_numeric_axis_tell_how_the_cost_grows():
    cells = [("plain", {"length": n}, 1e-6 * n**2) for n in (128, 256, 512, 1024)]
    cells += [("fast", {"length": n}, 1e-4 * n) for n in (128, 256, 512, 1024)]
    (figure,) = plots(speed(cells))
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


def test_one_technique_over_two_axes_is_a_map_of_both():
    cells = [("plain", {"batch": b, "width": w}, ord(b) * ord(w)) for b in "12" for w in "345"]
    table = speed(cells)
    found = grid(table, series(table, SPEED.metrics[0]))
    assert (found.rows, found.columns) == (("batch 1", "batch 2"), ("3", "4", "5"))
    assert np.isfinite(found.values).all()
    assert "Brighter: better; empty" in caption(cells)


def test_settings_with_few_techniques_do_not_mix_with_those_of_many():
    cells = [(f"t{i}", {"data": "all"}, 1.0 + i) for i in range(8)]
    cells += [("t0", {"data": f"d{i}"}, 99.0) for i in range(6)]
    text = caption(cells)
    assert "Setting all, the one of 7 settings with most techniques." in text
    assert "to t7 8" in text.replace("7.9", "8")


def test_a_metric_that_is_the_same_for_all_is_not_drawn():
    cells = [record("quality", f"toys/{name}", {"score": score(1.0)}) for name in "ab"]
    assert plots(build("quality", cells, QUALITY)) == []


def test_front_respects_directions():
    a, b, c = Point("a", False, 1.0, 1.0), Point("b", False, 2.0, 2.0), Point("c", False, 2.0, 1.5)
    assert front([a, b, c], x_better="lower", y_better="higher") == [a, b]
    assert front([a, b, c], x_better="higher", y_better="higher") == [b]
    assert front([a, b, c], x_better="lower", y_better="lower") == [a]


def test_quality_finds_its_cost_in_another_suite():
    records = some_records()
    table = build("speed", [r for r in records if r.suite == "speed"], SPEED)
    quality = build("quality", [r for r in records if r.suite == "quality"], QUALITY)
    figure = pareto(quality, [quality, table])
    assert figure is not None
    assert "Time is from Speed" in figure.caption
    assert "Not beaten on both: plain, fast, rival" in figure.caption
    assert pareto(table, [quality, table]) is None


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
