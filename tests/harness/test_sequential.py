"""Looks at a running measurement: bounds that spend what they may, and what stopping early gives.

The simulations are the figures that the constants were chosen by. Rounds are log-normal with a
fifth held up to four times as long, processes differ, and at all 60 rounds the ratio of 25 %
quantiles spreads by 0.5 to 1 % (noted at each).
"""

import numpy as np
import pytest

from harness.errors import UsageError
from harness.record import Quantity
from harness.sequential import Looks, judge_at
from harness.verdict import Rule

LOOKS, RULE = Looks(), Rule(resamples=1_000)
ROUNDS, TRIALS = 6, 200


def side(rng, factor, spread, processes):
    shape = LOOKS.generations, ROUNDS
    held_up = np.where(rng.random(shape) < 0.2, rng.uniform(1.2, 4, shape), 1)
    luck = rng.normal(0, processes, (LOOKS.generations, 1))
    return factor * np.exp(spread * rng.normal(size=shape) + luck) * held_up


def quantity(times):
    return Quantity(
        value=1.0, unit="s", better="lower", kind="timing", samples=times.ravel().tolist(),
        generations=[ROUNDS] * len(times),
    )  # fmt: skip


def settled(rng, slowdown, spread, processes):
    """Verdict and rounds at the look that resolves it."""
    before, after = (side(rng, factor, spread, processes) for factor in (1, 1 + slowdown))
    for generations in LOOKS.places:
        sides = quantity(before[:generations]), quantity(after[:generations])
        change = judge_at(*sides, LOOKS.after(generations), LOOKS, RULE)
        if change.verdict != "unresolved":
            break
    return change.verdict, generations * ROUNDS


def trials(slowdown, spread, processes, seed=1):
    rng = np.random.default_rng(seed)
    found = [settled(rng, slowdown, spread, processes) for _ in range(TRIALS)]
    words = [word for word, _ in found]
    return (
        words.count("regressed") / TRIALS,
        words.count("improved") / TRIALS,
        float(np.mean([rounds for _, rounds in found])),
    )


def test_one_look_is_the_level():
    assert Looks(n=1).z(1) == pytest.approx(1.959964, abs=1e-5)


@pytest.mark.parametrize("looks", [Looks(), Looks(n=3, generations=6), Looks(level=0.9)])
def test_walks_without_drift_are_stopped_as_often_as_the_level_says(looks):
    n = 200_000
    steps = np.random.default_rng(0).normal(size=(n, looks.generations))
    walks = steps.cumsum(axis=1) / np.sqrt(np.arange(1, looks.generations + 1))
    bounds = [looks.z(number + 1) for number in range(len(looks.places))]
    stopped = np.abs(walks[:, np.array(looks.places) - 1]) > bounds
    alpha = 1 - looks.level
    assert stopped.any(axis=1).mean() == pytest.approx(alpha, abs=4 * np.sqrt(alpha / n))
    first = alpha * (looks.places[0] / looks.generations) ** 2
    assert stopped[:, 0].mean() == pytest.approx(first, abs=4 * np.sqrt(first / n))


def test_looks_begin_at_four_generations():
    assert Looks().places == (4, 5, 6, 7, 8, 9, 10)
    assert Looks(n=3, generations=6).places == (4, 5, 6)
    assert Looks(n=4).places == (4, 6, 8, 10)
    assert Looks(generations=3).places == (3,)


def test_the_look_of_a_generation():
    looks = Looks(n=4)
    assert [looks.due(n) for n in (3, 4, 5, 6)] == [False, True, False, True]
    assert [looks.after(n) for n in (1, 4, 5, 6, 10, 12)] == [1, 1, 1, 2, 4, 4]


@pytest.mark.parametrize("wrong", [{"n": 0}, {"generations": 0}, {"level": 1.0}])
def test_impossible_looks_are_refused(wrong):
    with pytest.raises(UsageError, match="must be"):
        Looks(**wrong)


# (spread of rounds, spread of processes): spread of the ratio 0.5 %, 0.75 %, 0.6 %, 0.75 %.
NOISE = [(0.02, 0.0), (0.03, 0.0), (0.002, 0.01), (0.02, 0.01)]


@pytest.mark.parametrize("noise", NOISE)
def test_the_same_code_is_accused_in_at_most_one_trial_of_a_hundred(noise):
    regressed, improved, _ = trials(0.0, *noise)
    assert regressed + improved <= 0.01


@pytest.mark.parametrize(("noise", "rounds"), list(zip(NOISE, (28, 35, 30, 33), strict=True)))
def test_five_percent_is_found_early(noise, rounds):
    regressed, improved, mean_rounds = trials(0.05, *noise)
    assert regressed >= 0.95
    assert not improved
    assert mean_rounds <= rounds


def test_more_noise_costs_rounds_and_some_finds():
    regressed, _, mean_rounds = trials(0.05, 0.04, 0.0)  # spread of the ratio 1 %
    assert regressed >= 0.85
    assert 36 <= mean_rounds <= 46


def test_ten_percent_is_found_at_the_first_looks_and_two_percent_sometimes():
    regressed, _, mean_rounds = trials(0.1, 0.02, 0.0)
    assert regressed == 1
    assert mean_rounds <= 26
    regressed, improved, _ = trials(0.02, 0.02, 0.0)
    assert 0.15 <= regressed <= 0.5
    assert not improved


def test_a_change_of_just_the_margin_is_no_regression():
    regressed, _, _ = trials(0.01, 0.02, 0.0)
    assert regressed <= 0.025 + 3 * np.sqrt(0.025 / TRIALS)


def test_quiet_machines_are_shown_to_be_equivalent_early():
    rng = np.random.default_rng(0)
    found = [settled(rng, 0.0, 0.002, 0.001) for _ in range(50)]
    assert [word for word, _ in found].count("equivalent") >= 48
    assert np.mean([rounds for _, rounds in found]) <= 30
