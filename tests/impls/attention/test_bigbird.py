"""BigBird's blocks."""

import pytest
import torch

from impls.attention import BigBird

TECHNIQUE = BigBird(block=4, n_window=3, n_global=2, n_random=3)


def blocks(n: int, causal: bool, technique: BigBird = TECHNIQUE) -> torch.Tensor:
    """Which blocks a head's query blocks read, (H, n, n) bool; a block is read whole or not."""
    mask = technique.mask(4 * n, 4 * n, causal=causal, offset=0, n_heads=3)[0]
    squares = mask.unflatten(1, (n, 4)).unflatten(3, (n, 4)).transpose(2, 3)  # (H, n, n, 4, 4)
    below = torch.ones(n, n).tril(-1) > 0
    assert torch.equal(squares.any(-1).any(-1) & below, squares.all(-1).all(-1) & below)
    return squares.any(-1).any(-1)


@pytest.mark.parametrize("causal", [True, False])
def test_window_global_and_as_many_random_blocks_as_there_are(causal):
    n = 16
    for head in blocks(n, causal):
        for b, row in enumerate(head.tolist()):
            possible = set(range(b + 1 if causal else n))
            fixed = {c for c in possible if abs(b - c) <= 1 or c < 2 or b < 2}
            read = {c for c, seen in enumerate(row) if seen}
            assert fixed <= read <= possible
            assert len(read - fixed) == min(3, len(possible - fixed))


def test_heads_draw_blocks_of_their_own():
    first, second, third = blocks(32, causal=True)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_a_causal_row_does_not_depend_on_how_many_follow():
    assert torch.equal(blocks(40, causal=True)[:, :24, :24], blocks(24, causal=True))


def test_the_seed_decides():
    other = BigBird(block=4, n_window=3, n_global=2, n_random=3, seed=1)
    assert not torch.equal(blocks(32, True), blocks(32, True, other))
    assert torch.equal(blocks(32, True), blocks(32, True))


def test_global_blocks_for_all_read_everything():
    dense = BigBird(block=4, n_global=16, n_random=0)
    assert dense.mask(64, 64, causal=False, offset=0, n_heads=1).all()


def test_an_even_window_is_refused():
    with pytest.raises(ValueError, match="n_window must be odd and at least 1, got 2"):
        BigBird(n_window=2)
