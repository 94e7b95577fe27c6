"""NTK-aware scaling: the ends of the frequencies, and the two variants."""

import pytest
import torch

from impls.context import LogNScaling, NTKAware
from impls.context.interface import RopeShape

ROPE = RopeShape(d=32, base=10_000.0, train_len=128)


@pytest.mark.parametrize("scale", [2, 8])
def test_the_highest_frequency_stays_and_the_lowest_is_divided(scale):
    theta, factor = NTKAware().frequencies(ROPE, target_len=128 * scale, length=1)
    assert theta[0] == ROPE.theta[0] == 1
    torch.testing.assert_close(theta[-1] * scale, ROPE.theta[-1], rtol=1e-13, atol=0)
    assert factor == 1


def test_all_between_are_interpolated_the_more_the_lower_they_are():
    theta, _ = NTKAware().frequencies(ROPE, target_len=512, length=1)
    assert ((ROPE.theta / theta).diff() > 0).all()


def test_the_mixed_variant_interpolates_the_lowest_by_the_factor_and_the_highest_a_little():
    theta, _ = NTKAware(variant="mixed").frequencies(ROPE, target_len=512, length=1)
    torch.testing.assert_close(theta[-1] * 4, ROPE.theta[-1], rtol=1e-13, atol=0)
    assert 1 < ROPE.theta[0] / theta[0] < 4 ** (1 / 4)
    assert ((ROPE.theta / theta).diff() > 0).all()


def test_one_pair_alone_stays_as_it_was():
    rope = RopeShape(d=2, base=10_000.0, train_len=128)
    theta, _ = NTKAware().frequencies(rope, target_len=512, length=1)
    assert torch.equal(theta, rope.theta)


@torch.no_grad()
def test_with_log_n_it_is_the_two_blocks_nested(decoder, ids):
    model = decoder()
    with NTKAware(logn=True).applied(model, target_len=48):
        together = model(ids())
    with (
        NTKAware().applied(model, target_len=48),
        LogNScaling().applied(model, target_len=48),
    ):
        assert torch.equal(model(ids()), together)


@torch.no_grad()
def test_a_second_frequency_rule_is_refused(decoder):
    model = decoder()
    with (
        NTKAware().applied(model, target_len=48),
        pytest.raises(ValueError, match="changed already"),
        NTKAware().applied(model, target_len=48),
    ):
        pass
