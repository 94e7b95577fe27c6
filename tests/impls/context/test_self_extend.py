"""Self-Extend: every pair at the distance that the rule says, none beyond the trained range."""

import pytest
import torch

from impls.context import ReRoPE, SelfExtend

T = 20


def distance(i, j, near, group):
    """By the definition; keys later than a query count as near."""
    grouped = i // group - j // group + near - near // group
    return i - j if i - j < near else grouped


@pytest.mark.parametrize("group", [1, 3, 64])
@pytest.mark.parametrize("near", [1, 5, T])
def test_scores_are_rotations_pair_by_pair(vectors, scores, pairwise, rope, near, group):
    q, k = vectors(T)
    rule = SelfExtend(neighbours=near, group=group)
    extended = rule.extended(rope, train_len=8, target_len=T)
    at = [[distance(i, j, near, group) for j in range(T)] for i in range(T)]
    expected = pairwise(q, k, torch.tensor(at), rope.rule(1)[0])
    torch.testing.assert_close(scores(extended, q, k), expected, atol=1e-12, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(
    "rule", [SelfExtend(neighbours=48), SelfExtend(neighbours=4, group=1)], ids=str
)
def test_neighbours_over_all_and_groups_of_one_are_the_plain_rotation(decoder, ids, rule):
    model = decoder()
    plain = model(ids())
    if rule.group is None:
        rule = SelfExtend(neighbours=48, group=2)
    with rule.applied(model, target_len=48):
        torch.testing.assert_close(model(ids()), plain, atol=1e-10, rtol=0)


def test_one_group_for_all_is_rerope(vectors, scores, rope):
    q, k = vectors(T)
    rules = SelfExtend(neighbours=4, group=T), ReRoPE(window=4)
    ours, rectified = (
        scores(rule.extended(rope, train_len=8, target_len=T), q, k) for rule in rules
    )
    torch.testing.assert_close(ours, rectified, atol=1e-12, rtol=0)


@pytest.mark.parametrize("train_len", [8, 13, 64])
@pytest.mark.parametrize("near", [1, 3, None])
@pytest.mark.parametrize("times", [1, 2, 5, 8])
def test_the_chosen_group_keeps_distances_in_the_trained_range(train_len, near, times):
    target = times * train_len
    near = train_len // 2 if near is None else near
    group = SelfExtend()._group(near, train_len, target)
    farthest = max(distance(i, j, near, group) for i in range(target) for j in range(i + 1))
    assert farthest < train_len


def test_neighbours_that_leave_no_room_for_groups_are_refused(rope):
    with pytest.raises(ValueError, match="8 neighbours leave none of the trained length 8"):
        SelfExtend(neighbours=8).extended(rope, train_len=8, target_len=16)


@pytest.mark.parametrize("options", [{"neighbours": 0}, {"group": 0}])
def test_bad_fields_are_refused(options):
    with pytest.raises(ValueError, match="at least 1 or None, got 0"):
        SelfExtend(**options)
