"""Verdicts on one metric: known changes are found, the same code is not accused."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from harness.bootstrap import averages, generations, rounds
from harness.effect import Side, effect_of
from harness.pairs import documents, mcnemar
from harness.record import Quantity
from harness.verdict import Rule, judge, unjudged

RULE = Rule()


def quantity(samples, sizes=(), value=None, **facts):
    samples = [float(x) for x in np.ravel(samples)]
    return Quantity(
        **{
            "value": float(np.median(samples)) if value is None else value,
            "unit": "ms",
            "better": "lower",
            "kind": "timing",
            "samples": samples,
            "generations": list(sizes),
            **facts,
        }
    )


def number(value, **facts):
    return quantity([], value=value, **{"kind": "quality", "better": "higher"} | facts)


def times(seed, n_generations=10, n_rounds=6, factor=1.0, processes=0.0):
    """Log-normal rounds, a fifth of them held up, in processes that differ."""
    rng = np.random.default_rng(seed)
    shape = n_generations, n_rounds
    held_up = np.where(rng.random(shape) < 0.2, rng.uniform(1.2, 4, shape), 1)
    luck = rng.normal(0, processes, (n_generations, 1))
    return factor * np.exp(0.02 * rng.normal(size=shape) + luck) * held_up


def pair(seed, factor, **process):
    sizes = [6] * 10
    return quantity(times(seed, **process), sizes), quantity(
        times(seed + 10_000, factor=factor, **process), sizes
    )


@pytest.mark.parametrize(("kind", "margin"), [("timing", 0.08), ("memory", 0.01)])
def test_only_the_margin_of_times_is_as_wide_as_the_noise(kind, margin):
    before, after = (replace(side, kind=kind) for side in pair(0, 1.05))
    change = judge(before, after, Rule(noise=0.08), paired=True)
    assert change.margin == margin
    assert change.verdict == ("equivalent" if kind == "timing" else "regressed")
    assert Rule(margin=0.1, noise=0.08).margin_of(kind) == 0.1


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, None])
def test_averages_are_those_of_the_repeated_samples(share):
    samples = np.random.default_rng(0).lognormal(size=30)
    for counts in (rounds(30, 300, (1,)), generations((3, 7, 10, 10), (1,))):
        repeated = [np.repeat(samples, column) for column in counts.T]
        expected = [np.mean(x) if share is None else np.quantile(x, share) for x in repeated]
        np.testing.assert_allclose(averages(samples, counts, share), expected, rtol=1e-12)


def test_generations_are_drawn_whole():
    counts = generations((3, 7, 10, 10), (1,))
    starts = [0, 3, 10, 20]
    for start, size in zip(starts, (3, 7, 10, 10), strict=True):
        assert (counts[start : start + size] == counts[start]).all()
    assert (counts[starts].sum(axis=0) == 4).all()


def test_interval_of_independent_rounds_is_the_bootstraps():
    before, after = (np.random.default_rng(seed).lognormal(0, 0.1, 60) for seed in (1, 2))
    sides = [Side(samples=x.tolist(), generations=[]) for x in (before, after)]
    effect = effect_of(*sides, 0.25, joint=False, resamples=2_000, seed=0)
    expected = stats.bootstrap(
        (before, after),
        lambda x, y, axis: np.log(np.quantile(y, 0.25, axis) / np.quantile(x, 0.25, axis)),
        n_resamples=20_000, method="percentile", rng=np.random.default_rng(0),
    )  # fmt: skip
    low, high = effect.interval(RULE.z)
    # Student's t with 59 degrees of freedom and sqrt(60 / 59): 3 % wider; Monte Carlo 8 % an end.
    tolerance = 0.15 * expected.standard_error * 1.96
    assert low == pytest.approx(expected.confidence_interval.low, abs=tolerance)
    assert high == pytest.approx(expected.confidence_interval.high, abs=tolerance)


@pytest.mark.parametrize(("n_generations", "processes"), [(10, 0.0), (10, 0.02), (4, 0.01)])
def test_interval_holds_the_truth_nineteen_times_in_twenty(n_generations, processes):
    held = 0
    for seed in range(400):
        sides = [
            Side(
                samples=times(s, n_generations, processes=processes).ravel().tolist(),
                generations=[6] * n_generations,
            )
            for s in (seed, seed + 10_000)
        ]
        low, high = effect_of(*sides, 0.25, joint=True, resamples=1_000, seed=0).interval(RULE.z)
        held += low <= 0 <= high
    assert held / 400 >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 400)  # three standard errors


def test_the_same_code_is_not_accused_and_a_slower_one_is():
    found = {
        factor: [judge(*pair(seed, factor), RULE, paired=True).verdict for seed in range(200)]
        for factor in (1.0, 1.05, 1 / 1.05)
    }
    assert sum(word in ("regressed", "improved") for word in found[1.0]) <= 2  # 1 %
    assert found[1.05].count("regressed") >= 190
    assert found[1 / 1.05].count("improved") >= 190


def test_processes_that_differ_widen_the_interval():
    rng = np.random.default_rng(0)
    luck = np.repeat([1.0, 1.0, 1.1, 1.1], 15) * np.exp(0.001 * rng.normal(size=60))
    steady = quantity(np.exp(0.001 * rng.normal(size=60)), [15] * 4)
    one = judge(quantity(steady.samples), quantity(luck), RULE, paired=False)
    several = judge(steady, quantity(luck, [15] * 4), RULE, paired=True)
    width = [math.log(change.high / change.low) for change in (one, several)]
    assert width[1] > 2 * width[0]


def test_rounds_taken_in_turns_are_resampled_together():
    drift = np.exp(np.linspace(0, 1, 60))
    rng = np.random.default_rng(0)
    before, after = (drift * np.exp(0.001 * rng.normal(size=60)) for _ in range(2))
    sides = quantity(before), quantity(after)
    together, apart = (judge(*sides, RULE, paired=paired) for paired in (True, False))
    assert together.paired
    assert together.verdict == "equivalent"
    assert apart.verdict == "unresolved"
    assert not judge(quantity(before), quantity(after[:50]), RULE, paired=True).paired


def test_a_time_is_compared_by_its_lower_quartile_and_a_rate_by_its_upper():
    samples = times(0)
    slow = judge(quantity(samples), quantity(1.2 * samples), RULE, paired=True)
    assert slow.baseline == pytest.approx(np.quantile(samples, 0.25), rel=1e-12)
    assert (slow.verdict, slow.value) == ("regressed", pytest.approx(1.2))
    rates = quantity(1 / samples, better="higher"), quantity(1 / (1.2 * samples), better="higher")
    rate = judge(*rates, RULE, paired=True)
    assert rate.baseline == pytest.approx(np.quantile(1 / samples, 0.75), rel=1e-12)
    assert (rate.verdict, rate.value) == ("regressed", pytest.approx(1 / 1.2))
    means = [replace(side, average="mean") for side in rates]
    assert judge(*means, RULE, paired=True).baseline == pytest.approx(np.mean(1 / samples))


def test_p_is_small_exactly_where_the_interval_clears_the_margin():
    for seed in range(60):
        change = judge(*pair(seed, 1.025), RULE, paired=True)
        assert (change.p < 0.05) == (change.verdict == "regressed")
        late = judge(*pair(seed, 1.04), RULE, paired=True, z=3.0)
        assert (late.p < 0.05) == (late.verdict == "regressed")


def test_a_wider_interval_is_asked_of_an_early_look():
    sides = pair(0, 1.03)
    narrow, wide = judge(*sides, RULE, paired=True), judge(*sides, RULE, paired=True, z=4.0)
    assert wide.low < narrow.low < narrow.high < wide.high
    assert wide.p > narrow.p


def test_few_samples_have_no_verdict_on_time():
    change = judge(quantity([1.0, 1.1]), quantity(times(0)), RULE, paired=False)
    assert change.verdict == "unresolved"
    assert change.low is None
    assert change.reason == "2 samples on a side: a verdict on timing needs 3"


def test_the_same_judgement_twice():
    sides = pair(3, 1.02)
    assert judge(*sides, RULE, paired=True) == judge(*sides, RULE, paired=True)


@pytest.mark.parametrize(
    ("before", "after", "better", "verdict"),
    [
        (0.8, 0.8, "higher", "equivalent"),
        (0.8, 0.805, "higher", "equivalent"),
        (0.8, 0.7, "higher", "regressed"),
        (0.8, 0.7, "lower", "improved"),
        (0.0, 0.0, "lower", "equivalent"),
        (0.0, 1e-9, "lower", "regressed"),
        (-1.0, -1.005, "higher", "equivalent"),
        (-1.0, -1.5, "higher", "regressed"),
    ],
)
def test_single_numbers_of_quality_are_compared_as_they_are(before, after, better, verdict):
    change = judge(number(before), number(after), RULE, paired=True)
    change = judge(number(before, better=better), number(after, better=better), RULE, paired=True)
    assert change.verdict == verdict
    assert change.p is change.low is change.high is None


def test_an_error_matters_when_it_more_than_doubles_or_is_new():
    def verdict(before, after):
        sides = (number(x, kind="error", better="lower") for x in (before, after))
        return judge(*sides, RULE, paired=True).verdict

    assert verdict(1e-7, 1.9e-7) == "equivalent"
    assert verdict(1e-7, 2.1e-7) == "regressed"
    assert verdict(1e-7, 0.4e-7) == "improved"
    assert verdict(0.0, 1e-7) == "regressed"


def test_a_count_without_direction_is_equal_or_not():
    same, more = (number(x, kind="count", better="neither") for x in (1_000, 1_001))
    assert judge(same, same, RULE, paired=True).verdict == "equivalent"
    changed = judge(same, more, RULE, paired=True)
    assert (changed.verdict, changed.reason) == (
        "unresolved",
        "it changed, and neither direction is better",
    )


def test_memory_needs_samples_for_a_change():
    one, more = (number(x, kind="memory", better="lower") for x in (100.0, 150.0))
    assert judge(one, one, RULE, paired=False).verdict == "equivalent"
    assert judge(one, more, RULE, paired=False).verdict == "unresolved"
    sides = (quantity(x * np.linspace(1, 1.01, 5), [1] * 5, kind="memory") for x in (100.0, 150.0))
    assert judge(*sides, RULE, paired=True).verdict == "regressed"


def test_answers_are_compared_by_mcnemars_exact_test():
    before = np.repeat([1.0, 0.0, 1.0, 0.0], [60, 20, 18, 2])
    after = np.repeat([1.0, 0.0, 0.0, 1.0], [60, 20, 18, 2])
    sides = (quantity(x, kind="quality", better="higher", average="mean") for x in (before, after))
    change = judge(*sides, RULE, paired=True)
    assert change.p == pytest.approx(2 * stats.binom.cdf(2, 20, 0.5))
    assert (change.effect, change.value) == ("difference", pytest.approx(-0.16))
    assert change.low < -0.16 < change.high < -0.01
    assert change.verdict == "regressed"


def test_interval_of_answers_holds_the_truth():
    rng, held = np.random.default_rng(0), 0
    for _ in range(500):
        gained, lost = (rng.random((2, 40)) < [[0.1], [0.05]]).astype(float)
        both = gained * lost
        found = mcnemar(lost - both, gained - both, RULE.z)
        held += found.low <= 0.1 * 0.95 - 0.05 * 0.9 <= found.high
    assert held / 500 >= 0.93


def test_few_answers_without_disagreement_are_only_the_same_if_all_are():
    right = quantity(np.ones(10), kind="quality", better="higher", average="mean")
    assert judge(right, right, RULE, paired=True).verdict == "equivalent"
    one_wrong = quantity([0, *np.ones(9)], kind="quality", better="higher", average="mean")
    assert judge(right, one_wrong, RULE, paired=True).verdict == "unresolved"


def test_the_same_documents_are_paired():
    rng = np.random.default_rng(0)
    difficulty = rng.lognormal(0, 0.5, 40)
    losses = [difficulty * factor * np.exp(0.01 * rng.normal(size=40)) for factor in (1, 1.03)]
    sides = [quantity(x, kind="quality", average="mean") for x in losses]
    assert judge(*sides, RULE, paired=True).verdict == "regressed"
    assert judge(*sides, RULE, paired=False).verdict == "unresolved"


def test_documents_read_by_every_generation_count_once():
    losses = np.random.default_rng(0).lognormal(0, 0.5, 20)
    again = quantity(np.tile(losses, 5), [20] * 5, kind="quality", average="mean")
    assert documents(again) == pytest.approx(losses)
    other = np.random.default_rng(1).lognormal(0, 0.5, 20)
    once, five = (
        judge(
            quantity(np.tile(losses, n), [20] * n, kind="quality", average="mean"),
            quantity(np.tile(other, n), [20] * n, kind="quality", average="mean"),
            RULE,
            paired=True,
        )
        for n in (1, 5)
    )
    assert (five.low, five.high) == pytest.approx((once.low, once.high))


def test_samples_across_zero_are_compared_by_their_difference():
    rng = np.random.default_rng(0)
    sides = (quantity(x + rng.normal(0, 0.1, 50), average="mean") for x in (0.0, 1.0))
    change = judge(*sides, RULE, paired=False)
    assert (change.effect, change.verdict) == ("difference", "regressed")
    assert change.low < 1 < change.high


def test_two_generations_give_an_interval_however_far():
    wild = [quantity(np.exp(5 * np.random.default_rng(s).normal(size=12)), [6, 6]) for s in (0, 1)]
    change = judge(*wild, RULE, paired=True, z=4.5)
    assert change.verdict == "unresolved"
    assert math.isfinite(change.high)


def test_no_verdict_without_a_value_or_with_a_reason():
    with pytest.raises(ValueError, match="without a value cannot be judged"):
        judge(Quantity(value=None, unit="s", better="lower", kind="timing"), number(1.0), RULE,
              paired=True)  # fmt: skip
    change = unjudged(number(1.0), number(2.0), RULE, "measured elsewhere")
    assert (change.verdict, change.reason, change.value) == ("unresolved", "measured elsewhere", 2)
