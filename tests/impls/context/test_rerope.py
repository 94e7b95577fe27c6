"""ReRoPE: every pair at the distance that the rule says."""

import pytest
import torch

from impls.context import LogNScaling, ReRoPE

T = 20


def distances(window, leak):
    """By the definition, pair by pair; keys later than a query count as near."""
    rows = []
    for i in range(T):
        far = [window + ((i - j - window) / leak if leak else 0) for j in range(T)]
        rows.append([i - j if i - j < window else far[j] for j in range(T)])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("leak", [None, 1.0, 3.0])
@pytest.mark.parametrize("window", [1, 5, T])
def test_scores_are_rotations_pair_by_pair(vectors, scores, pairwise, rope, window, leak):
    q, k = vectors(T)
    extended = ReRoPE(window=window, leak=leak).extended(rope, train_len=8, target_len=T)
    expected = pairwise(q, k, distances(window, leak), rope.rule(1)[0])
    torch.testing.assert_close(scores(extended, q, k), expected, atol=1e-12, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("rule", [ReRoPE(window=48), ReRoPE(window=4, leak=1.0)], ids=str)
def test_a_window_over_all_and_a_leak_of_one_are_the_plain_rotation(decoder, ids, rule):
    model = decoder()
    plain = model(ids())
    with rule.applied(model, target_len=48):
        torch.testing.assert_close(model(ids()), plain, atol=1e-10, rtol=0)


def test_a_leak_without_end_is_the_rectified_one(vectors, scores, rope):
    q, k = vectors(T)
    rules = ReRoPE(window=4), ReRoPE(window=4, leak=1e12)
    rectified, leaky = (
        scores(rule.extended(rope, train_len=8, target_len=T), q, k) for rule in rules
    )
    torch.testing.assert_close(leaky, rectified, atol=1e-10, rtol=0)


def test_the_window_is_half_the_trained_length_where_none_is_given(vectors, scores, rope):
    q, k = vectors(T)
    default, four = (
        scores(rule.extended(rope, train_len=8, target_len=T), q, k)
        for rule in (ReRoPE(), ReRoPE(window=4))
    )
    assert torch.equal(default, four)


@torch.no_grad()
def test_with_log_n_it_is_the_two_blocks_nested(decoder, ids):
    model = decoder()
    with ReRoPE(logn=True).applied(model, target_len=48):
        together = model(ids())
    with ReRoPE().applied(model, target_len=48), LogNScaling().applied(model, target_len=48):
        assert torch.equal(model(ids()), together)


@pytest.mark.parametrize("options", [{"window": 0}, {"leak": 0.5}])
def test_bad_fields_are_refused(options):
    with pytest.raises(ValueError, match="at least 1 or None, got 0"):
        ReRoPE(**options)
