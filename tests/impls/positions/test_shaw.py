"""Shaw's relative positions against a loop over queries and keys."""

import pytest
import torch

from impls.models.attention import weighted
from impls.positions.interface import Frame, LayerShape
from impls.positions.shaw import Shaw

SHAPE = LayerShape(n_heads=4, n_kv_heads=2, d_head=6)


def attend(layer, q, k, v, frame):
    bias = layer.score_bias(q, k, frame)
    return weighted(layer.queries(q, frame), k, v, frame, bias, layer.scale(q.shape[-1]), layer)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_equals_a_loop_over_pairs(causal):
    torch.manual_seed(0)
    layer = Shaw(clip=3).build(SHAPE).at(0).double()
    q = torch.randn(2, 4, 9, 6, dtype=torch.float64)
    k, v = torch.randn(2, 2, 2, 9, 6, dtype=torch.float64)
    pos = torch.arange(9)[None]
    y = attend(layer, q, k, v, Frame(pos, pos, causal=causal))
    for h, i in ((0, 0), (1, 8), (2, 4), (3, 5)):
        seen = range(i + 1 if causal else 9)
        rows = [max(-3, min(j - i, 3)) + 3 for j in seen]
        keys = k[0, h // 2, : len(rows)] + layer.a_k[rows]
        values = v[0, h // 2, : len(rows)] + layer.a_v[rows]
        expected = (keys @ q[0, h, i] / 6**0.5).softmax(0) @ values
        torch.testing.assert_close(y[0, h, i], expected)


def test_keys_beyond_the_clip_are_alike():
    layer = Shaw(clip=3).build(SHAPE).at(0)
    q, k = torch.randn(1, 4, 1, 6), torch.randn(1, 2, 12, 6)
    bias = layer.score_bias(q, k, Frame(torch.tensor([[11]]), torch.arange(12)[None]))[0, :, 0]
    assert torch.equal(bias[:, :9], bias[:, :1].expand(-1, 9))
    assert not torch.equal(bias[:, 8], bias[:, 9])


def test_layers_have_their_own_tables():
    encoding = Shaw(clip=3).build(SHAPE)
    assert sum(p.numel() for p in encoding.parameters()) == SHAPE.n_layers * 2 * 7 * SHAPE.d_head
    assert encoding.at(0) is not encoding.at(1)


def test_a_clip_of_nothing_is_refused():
    with pytest.raises(ValueError, match="got 0"):
        Shaw(clip=0)
