"""Two runs side by side: cells find their counterpart, metrics their verdict, doubts their line."""

import math
import time

import numpy as np
import pytest

from harness.comparison import compare
from harness.errors import UsageError
from harness.record import Floor, Quantity, Record
from harness.sequential import Looks
from harness.verdict import Rule

MACHINE = {"machine_class": "a processor, 2 cores, 8 GB", "versions": {"torch": "2.11"}}


def quantity(samples=(), value=None, **facts):
    samples = [float(x) for x in np.ravel(samples)]
    value = float(np.median(samples)) if value is None and samples else value
    defaults = {"unit": "ms", "better": "lower", "kind": "timing"}
    return Quantity(**{"value": value, "samples": samples} | defaults | facts)


def times(seed, factor=1.0, spread=0.02):
    rounds = factor * np.exp(spread * np.random.default_rng(seed).normal(size=(10, 6)))
    return quantity(rounds, generations=[6] * 10)


def record(number=0, run="old", **facts):
    """One cell; `number` tells it from others."""
    defaults = {
        "cell_id": f"{number:016x}",
        "run": run,
        "suite": "speed",
        "technique": "family/method",
        "options": {"depth": 2},
        "setting": {"size": number},
        "code": "0" * 16,
        "world": 1,
        "device": "cpu",
        "command": "llmatrix run",
        "outcome": "ok",
        "started": "2026-01-01T00:00:00+00:00",
        "wall_s": 1.0,
        "environment": MACHINE,
        "relay": f"relay {number}",
    }
    return Record(**defaults | facts)


def runs(n, factor=1.0, **facts):
    """Two runs of n timed cells."""
    old = [record(i, metrics={"ms": times(i)}, **facts) for i in range(n)]
    new = [
        record(i, "new", metrics={"ms": times(i + 1_000, factor)}, code="1" * 16, **facts)
        for i in range(n)
    ]
    return old, new


def verdicts(comparison):
    return [row.change.verdict for row in comparison.rows]


def test_a_slower_cell_is_told_first_with_the_runs_named():
    old, new = runs(3)
    new[1] = record(1, "new", metrics={"ms": times(7, 1.3)})
    found = compare(old, new)
    assert (found.baseline, found.candidate) == ("old", "new")
    assert found.rows[0].candidate is new[1]
    assert found.rows[0].quantity is new[1].metrics["ms"]
    assert verdicts(found)[0] == "regressed"
    assert "regressed" not in verdicts(found)[1:]
    assert found.warnings == ()


def test_cells_of_one_side_and_broken_and_mended_ones():
    old = [record(0), record(1), record(2), record(3, outcome="failed"), record(4, outcome="oom")]
    new = [
        record(1, "new"), record(2, "new", outcome="timeout"), record(3, "new"),
        record(4, "new", outcome="oom"), record(5, "new"),
    ]  # fmt: skip
    found = compare(old, new)
    assert found.only_baseline == (old[0],)
    assert found.only_candidate == (new[4],)
    assert found.broken == ((old[2], new[1]),)
    assert found.mended == ((old[3], new[2]),)
    assert found.rows == ()
    assert found.overall is None


def test_an_option_that_only_one_side_knows_does_not_part_cells():
    old = [record(i, options={"depth": i}, setting={"size": 1}) for i in (1, 2)]
    new = [
        record(i, "new", options={"depth": i, "form": "auto"}, setting={"size": 1, "seed": 0})
        for i in (2, 1)
    ]
    found = compare(old, new)
    assert not found.only_baseline
    assert not found.only_candidate
    differ = compare(old, [record(3, "new", options={"depth": 3, "form": "auto"}, setting={})])
    assert differ.only_baseline == tuple(old)


def test_the_same_configuration_comes_before_what_only_one_side_knows():
    old = [record(1, options={"depth": 2}, metrics={"ms": times(0)})]
    new = [
        record(1, "new", options={"depth": 2, "form": form}, metrics={"ms": times(1)})
        for form in ("a", "b")
    ]
    exact = record(1, "new", options={"depth": 2}, metrics={"ms": times(2)})
    found = compare(old, [*new, exact])
    assert found.rows[0].candidate is exact
    assert found.only_candidate == tuple(new)
    with pytest.raises(UsageError, match=r"2 cells of run 'new' .* differ in option form, unknown"):
        compare(old, new)


def test_techniques_devices_and_worlds_part_cells():
    for facts in ({"technique": "family/other"}, {"device": "cuda"}, {"world": 2}):
        found = compare([record()], [record(run="new", **facts)])
        assert len(found.only_baseline) == len(found.only_candidate) == 1


def test_of_two_records_of_a_cell_the_newer_counts():
    early = record(metrics={"n": quantity(value=1.0, kind="count")})
    late = record(
        metrics={"n": quantity(value=2.0, kind="count")}, started="2026-02-01T00:00:00+00:00"
    )
    for old in ([early, late], [late, early]):
        assert compare(old, [late]).rows[0].change.baseline == 2


def test_times_of_another_machine_have_no_verdict_but_quality_has():
    metrics = {"ms": times(0), "loss": quantity(value=1.0, kind="quality")}
    new = {"ms": times(1, 2.0), "loss": quantity(value=2.0, kind="quality")}
    other = {"machine_class": "another processor"}
    found = compare([record(metrics=metrics)], [record(metrics=new, environment=other)])
    words = {row.metric: row.change for row in found.rows}
    assert words["loss"].verdict == "regressed"
    assert words["ms"].verdict == "unresolved"
    assert words["ms"].reason == "measured on another class of machine"
    assert found.overall is None
    assert "1 cell was measured on different machines" in found.warnings[0]


def test_another_corpus_or_unit_has_no_verdict():
    loss = {"loss": quantity(value=1.0, kind="quality")}
    old = record(metrics=loss, notes={"corpus": {"sha256": "a", "bytes": 1}})
    same = record(run="new", metrics=loss, notes={"corpus": {"sha256": "a", "bytes": 2}})
    other = record(run="new", metrics=loss, notes={"corpus": {"sha256": "b", "bytes": 1}})
    assert verdicts(compare([old], [same])) == ["equivalent"]
    (row,) = compare([old], [other]).rows
    assert row.change.reason == "measured on another corpus"
    seconds = record(run="new", metrics={"loss": quantity(value=1.0, kind="quality", unit="s")})
    (row,) = compare([record(metrics=loss)], [seconds]).rows
    assert row.change.reason == "its unit was 'ms', now 's'"


def test_what_has_no_better_direction_is_judged_only_as_a_count():
    def cell(run, n):
        counted = quantity(value=n, kind="count", better="neither")
        return record(run=run, metrics={"n": counted, "ms": quantity(value=n, better="neither")})

    (row,) = compare([cell("old", 1.0)], [cell("new", 2.0)]).rows
    assert (row.metric, row.change.verdict) == ("n", "unresolved")


def test_a_value_on_one_side_only_is_told():
    old = record(metrics={"a": times(0), "b": quantity(value=None), "c": times(2)})
    new = record(run="new", metrics={"a": quantity(value=None), "b": times(1), "c": times(2)})
    found = compare([old], [new])
    assert [row.metric for row in found.rows] == ["c"]
    assert found.warnings == ("measured on one side only: speed a, speed b",)


def test_many_comparisons_are_corrected_together():
    """One slight change among two hundred equal cells may be chance; by itself it is a change."""
    old, new = runs(200)
    seeds = range(2_000, 2_100)
    slight = next(
        cell
        for cell in (record(0, "new", metrics={"ms": times(seed, 1.018)}) for seed in seeds)
        if 0.005 < compare(old[:1], [cell]).rows[0].change.p < 0.04
    )
    alone = compare(old[:1], [slight]).rows[0]
    assert alone.change.verdict == "regressed"
    among = compare(old, [slight, *new[1:]])
    (row,) = [row for row in among.rows if row.candidate is slight]
    assert row.change.verdict == "unresolved"
    assert row.change.reason.startswith("one of 200 comparisons: with p ")
    assert row.change.p == alone.change.p


def test_equal_code_has_next_to_no_changes():
    found = compare(*runs(300))
    assert sum(word in ("regressed", "improved") for word in verdicts(found)) <= 1


@pytest.mark.parametrize(("n", "factor", "told"), [
    (8, 1.1, "all 8 changed cells got worse"),
    (8, 0.9, "all 8 changed cells got better"),
    (7, 1.1, None),
])  # fmt: skip
def test_changes_that_all_go_one_way_raise_the_alarm(n, factor, told):
    found = compare(*runs(n, factor))
    assert [line.split(":")[0] for line in found.warnings] == ([told] if told else [])


def test_metrics_of_one_cell_are_one_change():
    metrics = [{f"ms{i}": times(i + seed, factor) for i in range(20)} for seed, factor in
               ((0, 1.0), (100, 1.2))]  # fmt: skip
    found = compare([record(metrics=metrics[0])], [record(run="new", metrics=metrics[1])])
    assert verdicts(found) == ["regressed"] * 20
    assert found.warnings == ()


def test_cells_that_were_not_timed_in_turns_are_counted():
    old, new = runs(2)
    alone = [record(i, "new", metrics=r.metrics, relay="") for i, r in enumerate(new)]
    (line,) = compare(old, alone).warnings
    assert line.startswith("2 cells were not timed in turns")
    assert not compare(old, alone).rows[0].change.paired
    assert compare(old, new).rows[0].change.paired


def test_one_process_a_side_is_told():
    cell = {"ms": quantity(np.linspace(1, 1.1, 20))}
    (line,) = compare([record(metrics=cell)], [record(run="new", metrics=cell)]).warnings
    assert line.startswith("1 cell was timed in one process a side")


def test_versions_harness_and_impossible_results_are_told():
    floor = Floor(flops=1.0, bytes=1.0, seconds=1.0, mfu=2.0, bandwidth_share=0.1, impossible=True)
    other = MACHINE | {"versions": {"torch": "2.12", "numpy": "2.0", "llmatrix": "0.2"}}
    old, new = runs(1)
    quick = {"ms": times(1).__class__(**{**vars(times(1)), "floor": floor})}
    new = [record(0, "new", metrics=quick, environment=other, harness_cpu_share=0.034)]
    versions, harness, impossible = compare(old, new).warnings
    assert versions == "other libraries: numpy None -> 2.0, torch 2.11 -> 2.12"
    assert "up to 3.4% of a core while 1 of 2 records" in harness
    assert impossible.startswith("faster than the machine can be")
    assert "new speed family/method size=0 ms" in impossible


def test_overall_is_the_geometric_mean_with_rates_turned_round():
    old, new = runs(30, 1.1)
    rates = [
        [
            record(i + 100, r.run, metrics={
                "rate": quantity(1 / np.array(r.metrics["ms"].samples), better="higher",
                                 generations=[6] * 10)
            })
            for i, r in enumerate(side)
        ]
        for side in (old, new)
    ]  # fmt: skip
    found = compare([*old, *rates[0]], [*new, *rates[1]]).overall
    assert found.value == pytest.approx(1.1, rel=0.005)
    assert found.low < found.value < found.high
    assert math.log(found.high / found.low) < 0.01


def test_looks_widen_the_intervals_of_cells_that_stopped_early():
    early = [times(0), times(1)]
    early = [quantity(q.samples[:24], generations=[6] * 4) for q in early]
    old, new = (record(run=run, metrics={"ms": q}) for run, q in
                zip(("old", "new"), early, strict=True))  # fmt: skip
    plain, looked = (compare([old], [new], Rule(), looks=looks).rows[0].change
                     for looks in (None, Looks()))  # fmt: skip
    assert looked.low < plain.low < plain.high < looked.high


def test_a_thousand_rows_take_seconds():
    old, new = runs(1_000)
    start = time.process_time()
    assert len(compare(old, new).rows) == 1_000
    assert time.process_time() - start < 5
