"""Facts of the sliding window."""

import pytest
import torch

from impls.attention import FullAttention, SlidingWindow
from impls.attention._blocks import layout
from impls.attention.interface import Work


def mask(n: int, window: int, causal: bool) -> torch.Tensor:
    return SlidingWindow(window=window).mask(n, n, causal=causal, offset=0, n_heads=2)[0, 0]


def test_a_query_reads_itself_and_the_w_minus_1_keys_before():
    for i, row in enumerate(mask(50, 7, causal=True).tolist()):
        assert row == [0 <= i - j < 7 for j in range(50)]


def test_without_causality_half_a_window_on_either_side():
    for i, row in enumerate(mask(50, 8, causal=False).tolist()):
        assert row == [abs(i - j) <= 4 for j in range(50)]


def test_a_window_as_long_as_the_sequence_is_full_attention():
    q = torch.randn(1, 2, 70, 8, dtype=torch.float64)
    y = SlidingWindow(window=70).attend(q, q, q)
    torch.testing.assert_close(y, FullAttention().attend(q, q, q))


def test_blocks_kept_are_those_the_window_touches():
    blocks = layout(
        SlidingWindow(window=128).rule(causal=True, n_heads=1, n_k=512),
        512,
        512,
        causal=True,
        offset=0,
    )
    assert blocks.rows.diff().tolist() == [1, 2] + 6 * [3]
    assert len(blocks.masks) == 2  # the diagonal's triangle and the one the window leaves


def test_cost_is_linear_in_the_length():
    pairs = [SlidingWindow(window=64).pairs(Work(n_q=n, n_k=n)) for n in (512, 1024, 2048)]
    assert pairs[2] - pairs[1] == 2 * (pairs[1] - pairs[0])


def test_the_state_holds_one_window_however_it_was_filled():
    technique = SlidingWindow(window=6)
    state = technique.init_state(1, 1000)
    k = torch.randn(1, 2, 40, 4)
    for piece in k.split([9, 1, 1, 29], dim=2):
        held = state.append(piece, piece, torch.arange(piece.shape[2])[None], None)
        assert held.k.shape[2] <= 5 + piece.shape[2]
        assert torch.equal(held.k[:, :, -piece.shape[2] :], piece)
    assert state.nbytes == 2 * 5 * 2 * 4 * 4
    assert state.length == 40


def test_a_window_of_none_is_refused():
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        SlidingWindow(window=0)
