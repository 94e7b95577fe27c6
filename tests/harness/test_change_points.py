"""Change points of a series of runs: steps are found where they are, noise and blips are not."""

import numpy as np
import pytest

from harness.change_points import change_points
from harness.verdict import Rule

RULE = Rule()


def noise(n, seed, spread=0.02):
    return np.exp(spread * np.random.default_rng(seed).normal(size=n))


def stepped(n, at, factor, seed=0):
    series = noise(n, seed)
    series[at:] *= factor
    return series


@pytest.mark.parametrize(("n", "at"), [(10, 5), (20, 10), (20, 4), (50, 40), (50, 47), (200, 120)])
@pytest.mark.parametrize("factor", [1.2, 1 / 1.2])
def test_a_step_is_found_where_it_is(n, at, factor):
    (step,) = change_points(stepped(n, at, factor).tolist(), RULE)
    assert step.index == at
    assert step.ratio == pytest.approx(factor, rel=0.04)  # three runs' median: 1.5 %
    assert step.after / step.before == pytest.approx(step.ratio)
    assert step.p < 0.001


def test_steps_come_in_order_of_time():
    series = noise(60, 1)
    series[20:] *= 1.3
    series[40:] /= 1.15
    first, second = change_points(series.tolist(), RULE)
    assert (first.index, second.index) == (20, 40)
    assert (first.ratio > 1, second.ratio < 1) == (True, True)


@pytest.mark.parametrize("n", [6, 10, 20, 50])
def test_noise_has_no_steps(n):
    false = sum(bool(change_points(noise(n, seed).tolist(), RULE)) for seed in range(300))
    assert false / 300 <= 0.02


def test_five_deviations_are_found_nine_times_in_ten():
    found = [change_points(stepped(20, 10, 1.1, seed).tolist(), RULE) for seed in range(200)]
    exact = sum(len(steps) == 1 and abs(steps[0].index - 10) <= 1 for steps in found)
    assert exact >= 180


def test_a_short_excursion_is_no_step():
    for length in (1, 2, 4):
        series = noise(40, 2)
        series[20 : 20 + length] *= 1.5
        assert not change_points(series.tolist(), RULE), length


def test_a_step_of_the_last_three_runs_is_seen():
    series = noise(30, 3)
    series[-3:] *= 1.3
    assert [step.index for step in change_points(series.tolist(), RULE)] == [27]


def test_a_step_within_the_margin_is_none():
    series = np.repeat([1.0, 1.009], 30) * noise(60, 4, spread=0.0005)
    assert not change_points(series.tolist(), RULE)
    assert change_points(series.tolist(), Rule(margin=0.005))


def test_a_ramp_is_told_as_steps_one_way():
    series = noise(60, 5) * np.exp(np.linspace(0, 1, 60))
    steps = change_points(series.tolist(), RULE)
    assert len(steps) >= 2
    assert all(step.ratio > 1 for step in steps)
    assert np.prod([step.ratio for step in steps]) == pytest.approx(np.e, rel=0.3)


def test_exact_numbers_step_exactly():
    assert not change_points([7.0] * 12, RULE)
    (step,) = change_points([7.0] * 6 + [8.0] * 6, RULE)
    assert (step.index, step.before, step.after, step.p) == (6, 7.0, 8.0, 0.0)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0, 3.0], [0.0] * 5 + [1.0] * 5])
def test_short_series_and_those_without_ratios_have_none(values):
    assert change_points(values, RULE) == []
