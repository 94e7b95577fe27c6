"""CoPE against a loop over pairs, and where its gates are known."""

import pytest
import torch

from impls.positions.cope import CoPE
from impls.positions.interface import Frame, LayerShape

SHAPE = LayerShape(n_heads=4, n_kv_heads=2, d_head=6)


def layer_and_inputs(p_max=4, dtype=torch.float64):
    torch.manual_seed(0)
    layer = CoPE(p_max=p_max).build(SHAPE).at(0).to(dtype)
    q, k = torch.randn(2, 4, 5, 6, dtype=dtype), torch.randn(2, 2, 9, 6, dtype=dtype)
    return layer, q, k, Frame(torch.arange(4, 9)[None], torch.arange(9)[None])


def test_scores_equal_a_loop_over_pairs():
    layer, q, k, frame = layer_and_inputs()
    bias = layer.score_bias(q, k, frame)
    for h, i, j in ((0, 0, 0), (1, 0, 4), (2, 4, 8), (3, 4, 0), (3, 2, 3)):
        gates = [torch.sigmoid(q[1, h, i] @ k[1, h // 2, m] / 6**0.5) for m in range(j, i + 5)]
        p = sum(gates).clamp(max=4)
        below, above = int(p.floor()), int(p.ceil())
        e = torch.lerp(layer.e[below], layer.e[above], p - below)
        torch.testing.assert_close(bias[1, h, i, j], q[1, h, i] @ e)


def test_open_gates_count_tokens():
    layer, q, _, frame = layer_and_inputs(p_max=64)
    open_gates = layer.positions(torch.full_like(q, 100.0), q.new_full((2, 2, 9, 6), 100.0), frame)
    expected = (frame.distance + 1).clamp(min=0).double()  # i - j + 1; 0 for later keys
    assert torch.equal(open_gates, expected[:, None].expand_as(open_gates))


def test_positions_end_at_p_max():
    layer, q, _, frame = layer_and_inputs(p_max=3)
    q, k = torch.full_like(q, 100.0), q.new_full((2, 2, 9, 6), 100.0)
    assert layer.positions(q, k, frame).max() == 3
    torch.testing.assert_close(layer.score_bias(q, k, frame)[0, 0, 4, 0], q[0, 0, 4] @ layer.e[3])


def test_padding_is_not_counted():
    layer, q, k, _ = layer_and_inputs()
    keep = torch.ones(2, 9, dtype=torch.bool)
    keep[:, 5] = False
    frame = Frame(torch.arange(4, 9)[None], torch.arange(9)[None], keep=keep)
    without = k[:, :, keep[0]]
    shorter = Frame(torch.arange(5, 8)[None], torch.arange(8)[None])
    p = layer.positions(q, k, frame)[:, :, 2:][..., keep[0]]
    torch.testing.assert_close(p, layer.positions(q[:, :, 2:], without, shorter))


def test_counts_stay_exact_in_bfloat16():
    layer, q, k, frame = layer_and_inputs(dtype=torch.bfloat16)
    assert layer.positions(q, k, frame).dtype == torch.float32
    assert layer.score_bias(q, k, frame).dtype == torch.bfloat16


def test_no_positions_are_refused():
    with pytest.raises(ValueError, match="got 0"):
        CoPE(p_max=0)
