"""The patterns of the Sparse Transformer, against the sets of its paper written out."""

import pytest
import torch

from impls.attention import StridedAttention

L, C, N = 6, 2, 40


def sets(pattern: str, i: int) -> tuple[set[int], set[int]]:
    """A1 and A2 of query i."""
    if pattern == "strided":
        near = set(range(max(0, i - L), i + 1))
        return near, {j for j in range(i + 1) if (i - j) % L == 0}
    near = {j for j in range(i + 1) if j // L == i // L}
    return near, {j for j in range(i + 1) if j % L in range(L - C, L)}


def rows(technique: StridedAttention) -> list[list[set[int]]]:
    """Keys read, by head and query."""
    mask = technique.mask(N, N, causal=True, offset=0, n_heads=4)[0]
    return [[set(row.nonzero().flatten().tolist()) for row in head] for head in mask]


@pytest.mark.parametrize("pattern", ["strided", "fixed"])
def test_every_head_reads_both_sets(pattern):
    (head,) = rows(StridedAttention(pattern=pattern, stride=L, expressivity=C))
    for i, keys in enumerate(head):
        near, far = sets(pattern, i)
        assert keys == near | far


@pytest.mark.parametrize("pattern", ["strided", "fixed"])
def test_heads_take_the_sets_in_turn(pattern):
    technique = StridedAttention(pattern=pattern, stride=L, expressivity=C, heads="alternate")
    for head, found in enumerate(rows(technique)):
        assert found == [sets(pattern, i)[head % 2] for i in range(N)]


def test_two_steps_reach_every_earlier_token():
    mask = (
        StridedAttention(stride=L, expressivity=C)
        .mask(N, N, causal=True, offset=0, n_heads=1)[0, 0]
        .float()
    )
    assert torch.equal((mask @ mask) > 0, torch.ones(N, N).tril() > 0)


def test_a_stride_of_1_reads_everything():
    mask = StridedAttention(stride=1, expressivity=1).mask(N, N, causal=True, offset=0, n_heads=1)
    assert torch.equal(mask[0, 0], torch.ones(N, N).tril() > 0)


def test_expressivity_above_the_stride_is_refused():
    with pytest.raises(ValueError, match=r"expressivity must be in \[1, stride = 4\], got 8"):
        StridedAttention(stride=4)
