"""Position interpolation: positions are divided."""

import torch

from impls.context import PositionInterpolation
from impls.context.interface import RopeShape

ROPE = RopeShape(d=32, base=10_000.0, train_len=128)


def test_frequencies_are_those_of_transformers(hf_frequencies):
    theirs, factor = hf_frequencies("linear", factor=4.0)
    ours, our_factor = PositionInterpolation().frequencies(ROPE, target_len=512, length=300)
    assert (ours - theirs).abs().max() <= 2**-24 / 4 * 2  # a rounding of 1 / 4 to float32, twice
    assert our_factor == factor == 1


def test_scores_are_those_at_positions_divided_by_the_factor(vectors, scores, pairwise, rope):
    q, k = vectors(20)
    extended = PositionInterpolation().extended(rope, train_len=8, target_len=20)
    i = torch.arange(20)
    expected = pairwise(q, k, (i[:, None] - i).double() / 2.5, rope.rule(1)[0])
    torch.testing.assert_close(scores(extended, q, k), expected, atol=1e-12, rtol=0)


def test_its_own_factor_goes_before_the_lengths():
    theta, _ = PositionInterpolation(factor=2.0).frequencies(ROPE, target_len=512, length=1)
    assert theta[0] == 0.5


@torch.no_grad()
def test_a_factor_of_one_is_the_identity(decoder, ids):
    model = decoder()
    logits = model(ids())
    with PositionInterpolation(factor=1.0).applied(model, target_len=48):
        assert torch.equal(model(ids()), logits)
