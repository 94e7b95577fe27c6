"""LongRoPE: parity, first tokens, and the search."""

import numpy as np
import pytest
import torch

from impls.context import LongRoPE
from impls.context.interface import RopeShape
from impls.context.longrope import searched

ROPE = RopeShape(d=32, base=10_000.0, train_len=128)
SHORT = tuple(1 + n / 100 for n in range(16))
LONG = tuple(1 + n / 2 for n in range(16))


@pytest.mark.parametrize("length", [100, 128, 129, 1024])
def test_frequencies_and_factor_are_those_of_transformers(hf_frequencies, length):
    theirs, factor = hf_frequencies(
        "longrope",
        length=length,
        longest=1024,
        factor=8.0,
        original_max_position_embeddings=128,
        short_factor=list(SHORT),
        long_factor=list(LONG),
    )
    rule = LongRoPE(short_factors=SHORT, long_factors=LONG)
    ours, our_factor = rule.frequencies(ROPE, target_len=1024, length=length)
    torch.testing.assert_close(ours, theirs, rtol=16 * 2**-23, atol=0)  # a power, in float32
    assert our_factor == pytest.approx(factor) == pytest.approx(1.195229, abs=1e-6)


def test_the_first_tokens_turn_as_trained(vectors, scores, pairwise, rope):
    (q, k), i = vectors(20), torch.arange(20)
    factors = (1.0, 2.0, 3.0, 4.0)
    rule = LongRoPE(short_factors=factors, long_factors=factors, kept=6)
    extended = rule.extended(rope, train_len=8, target_len=20)
    theta, factor = extended.rule(20)
    far = pairwise(q, k, i[:, None] - i, theta)
    first = pairwise(q, k, i[:, None] - i, rope.rule(1)[0])
    found = scores(extended, q, k) / factor**2
    torch.testing.assert_close(found[..., :6, :6], first[..., :6, :6], atol=1e-12, rtol=0)
    torch.testing.assert_close(found[..., 6:, 6:], far[..., 6:, 6:], atol=1e-12, rtol=0)


@torch.no_grad()
def test_with_one_set_of_factors_decoding_is_one_pass(decoder, ids):
    model, factors = decoder(), (1.0, 2.0, 3.0, 4.0)
    rule = LongRoPE(short_factors=factors, long_factors=factors, kept=4)
    with rule.applied(model, target_len=48):
        state = model.init_state(2, 48)
        decoded = torch.cat([model(x, state=state) for x in ids().split(1, dim=1)], dim=1)
        torch.testing.assert_close(decoded, model(ids()), atol=1e-10, rtol=0)


def test_factors_that_do_not_fit_the_model_are_refused(decoder):
    model = decoder()
    with (
        pytest.raises(ValueError, match="3 factors do not fit 4 frequencies"),
        LongRoPE(long_factors=(1.0, 2.0, 3.0)).applied(model, target_len=48),
    ):
        model(torch.zeros(1, 20, dtype=torch.long))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kept": -1}, "kept must not be negative, got -1"),
        ({"long_factors": (1.0, 0.0)}, r"long_factors must be above 0, got \(1.0, 0.0\)"),
    ],
)
def test_bad_fields_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LongRoPE(**options)


class TestSearch:
    """Over a loss whose minimum is known: late, sudden interpolation and four tokens kept."""

    best = np.where(np.arange(16) < 9, 1.0, 6.0)

    def loss(self, rule):
        self.tried.append(rule)
        factors = np.log(np.array(rule.long_factors) / self.best)
        return float((factors**2).sum()) + (rule.kept != 4)

    def run(self, **options):
        self.tried = []
        return searched(self.loss, ROPE, target_len=1024, **options)

    def test_finds_better_factors_than_it_starts_from(self):
        found = self.run(population=24, generations=30)
        starts = [self.loss(rule) for rule in self.tried[:3]]
        assert found.kept == 4
        assert self.loss(found) < 0.5 * min(starts)

    def test_candidates_are_monotone_and_within_the_scale(self):
        self.run()
        factors = np.array([rule.long_factors for rule in self.tried])
        assert (np.diff(factors, axis=1) >= 0).all()
        assert factors.min() >= 1
        assert factors.max() <= 8

    def test_it_is_the_best_it_tried_and_the_same_for_a_seed(self):
        found = self.run(seed=3)
        assert self.loss(found) == min(map(self.loss, list(self.tried)))
        assert self.run(seed=3) == found != self.run(seed=4)

    def test_it_asks_for_as_many_losses_as_it_says(self):
        self.run(population=6, generations=3)
        assert len(self.tried) == 6 + 3 * 3

    def test_too_small_a_population_is_refused(self):
        with pytest.raises(ValueError, match="population >= 4"):
            self.run(population=3)
