"""Estimates: medians, and intervals that are the percentile bootstrap's."""

import numpy as np
import pytest
from scipy import stats

from harness.statistics import Estimate, ratio, summarise


def lognormal(n, seed=0, centre=1.0):
    return (centre * np.random.default_rng(seed).lognormal(0, 0.1, n)).tolist()


@pytest.mark.parametrize(("samples", "median"), [([3.0], 3.0), ([1.0, 4.0], 2.5), ([9, 1, 5], 5.0)])
def test_value_is_the_median(samples, median):
    assert summarise(samples).value == median


def test_fewer_than_three_samples_have_no_interval():
    assert summarise([1.0, 2.0]) == Estimate(1.5, None, None)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="at least 1 sample, got 0"):
        summarise([])


def test_the_same_samples_give_the_same_interval_in_any_order():
    samples = lognormal(50)
    assert summarise(samples) == summarise(samples[::-1])


def test_equal_samples_have_an_interval_of_no_width():
    assert summarise([2.0] * 10) == Estimate(2.0, 2.0, 2.0)


@pytest.mark.parametrize("n", [3, 4, 7, 10, 31, 100])
def test_interval_is_the_percentile_bootstrap(n):
    samples = sorted(lognormal(n, seed=n))
    expected = stats.bootstrap(
        (samples,), np.median, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    _, low, high = summarise(samples)
    # A quantile of 2,000 resamples is off by sqrt(.025 * .975 / 2000) = 0.35 % of probability;
    # three times that moves the end by at most one neighbouring sample.
    for end, exact in ((low, expected.low), (high, expected.high)):
        position = np.searchsorted(samples, exact)
        bounds = samples[max(position - 2, 0)], samples[min(position + 1, n - 1)]
        assert bounds[0] <= end <= bounds[1]


def test_interval_covers_the_true_median_nineteen_times_in_twenty():
    trials = 2_000
    draws = np.random.default_rng(3).lognormal(0, 0.5, (trials, 30))
    covered = sum(low <= 1 <= high for _, low, high in map(summarise, draws))
    # Percentile intervals of a median cover 93 to 96 % at n = 30; four standard errors more.
    assert 0.91 <= covered / trials <= 0.98


def test_ratio_is_of_medians_and_its_interval_holds_the_truth():
    value, low, high = ratio(lognormal(200, 1, centre=3.0), lognormal(200, 2))
    assert value == np.median(lognormal(200, 1, centre=3.0)) / np.median(lognormal(200, 2))
    assert low < 3 < high
    assert (high - low) / 3 < 0.1


def test_ratio_to_itself_spans_one():
    samples = lognormal(100)
    value, low, high = ratio(samples, samples)
    assert value == 1
    assert low < 1 < high


def test_ratio_without_enough_samples_is_plain():
    assert ratio([6.0], lognormal(10)).low is None
    assert ratio([6.0], [2.0]) == Estimate(3.0, None, None)


def test_ratio_to_zero_is_refused_and_across_zero_has_no_interval():
    with pytest.raises(ValueError, match="median is 0"):
        ratio([1.0], [0.0])
    assert ratio([1.0, 2.0, 3.0], [-1.0, 1.0, 1.0]) == Estimate(2.0, None, None)


def test_a_mean_has_the_bootstrap_interval_of_a_mean():
    samples = lognormal(40)
    value, low, high = summarise(samples, "mean")
    expected = stats.bootstrap(
        (samples,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert value == pytest.approx(np.mean(samples), rel=1e-14)
    # An end of 2,000 resamples is off by 0.35 % of probability, 0.06 standard errors at 2.5 %;
    # four times that is allowed.
    error = np.std(samples) / np.sqrt(40)
    assert abs(low - expected.low) < 0.24 * error
    assert abs(high - expected.high) < 0.24 * error


def test_a_ratio_of_means_is_one_of_means():
    above, below = lognormal(30, 1, centre=3.0), lognormal(30, 2)
    assert ratio(above, below, "mean").value == np.mean(above) / np.mean(below)
