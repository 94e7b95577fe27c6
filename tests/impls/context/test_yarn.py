"""YaRN: parity, and what the ramp leaves alone."""

import math

import pytest
import torch

from impls.context import YaRN
from impls.context.interface import RopeShape

ROPE = RopeShape(d=32, base=10_000.0, train_len=128)


@pytest.mark.parametrize(
    "options",
    [{}, {"beta_fast": 16.0, "beta_slow": 2.0}, {"truncate": False}, {"attention_factor": 1.5}],
    ids=str,
)
@pytest.mark.parametrize("scale", [2.0, 8.0])
def test_frequencies_and_factor_are_those_of_transformers(hf_frequencies, scale, options):
    theirs, factor = hf_frequencies(
        "yarn",
        factor=scale,
        longest=int(128 * scale),
        original_max_position_embeddings=128,
        **options,
    )
    ours, our_factor = YaRN(**options).frequencies(ROPE, target_len=int(128 * scale), length=1)
    # Powers, ramp and sum are each rounded to float32, a power by ln(1e4) roundings.
    torch.testing.assert_close(ours, theirs, rtol=16 * 2**-23, atol=0)
    assert our_factor == pytest.approx(factor, rel=1e-12)


def test_a_ramp_without_width_is_a_step_as_in_transformers(hf_frequencies):
    """Over 6 tokens no pair turns once, and both ends of the ramp are the first pair."""
    theirs, _ = hf_frequencies("yarn", factor=2.0, original_max_position_embeddings=6)
    rope = RopeShape(d=32, base=10_000.0, train_len=6)
    ours, _ = YaRN(factor=2.0).frequencies(rope, target_len=12, length=1)
    torch.testing.assert_close(ours, theirs, rtol=16 * 2**-23, atol=0)
    torch.testing.assert_close(ours[1:] * 2, rope.theta[1:], rtol=1e-13, atol=0)


def test_pairs_that_turn_often_stay_and_those_that_turn_less_than_once_are_interpolated():
    rope = RopeShape(d=64, base=10_000.0, train_len=2048)
    theta, factor = YaRN(factor=4.0).frequencies(rope, target_len=2048, length=1)
    turns = rope.train_len * rope.theta / (2 * math.pi)
    kept, slow = turns > 32 * 1.4, turns < 1 / 1.4  # ends are whole pairs, 1.33 apart
    assert kept.any()
    assert slow.any()
    assert torch.equal(theta[kept], rope.theta[kept])
    torch.testing.assert_close(theta[slow], rope.theta[slow] / 4, rtol=1e-13, atol=0)
    assert factor == pytest.approx(0.1 * math.log(4) + 1)


def test_scores_are_sharpened_by_the_square_of_the_factor(vectors, scores, pairwise, rope):
    (q, k), i = vectors(20), torch.arange(20)
    extended = YaRN(attention_factor=1.5).extended(rope, train_len=8, target_len=20)
    theta, _ = extended.rule(1)
    expected = 1.5**2 * pairwise(q, k, i[:, None] - i, theta)
    torch.testing.assert_close(scores(extended, q, k), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta_fast": 1.0}, "beta_fast > beta_slow > 0, got 1.0 and 1.0"),
        ({"beta_slow": 0.0}, "got 32.0 and 0.0"),
        ({"attention_factor": 0.0}, "attention_factor must be above 0, got 0.0"),
    ],
)
def test_bad_fields_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        YaRN(**options)
