"""Facts of multi-query attention."""

import torch

from impls.attention import FullAttention, MultiQueryAttention
from impls.attention.interface import LayerShape

SHAPE = LayerShape(d_model=32, n_heads=4, n_kv_heads=4, d_head=8)


def test_the_layer_projects_to_one_key_and_value_head():
    layer = MultiQueryAttention().build(SHAPE)
    assert layer.k_proj.weight.shape == layer.v_proj.weight.shape == (8, 32)
    assert layer.q_proj.weight.shape == (32, 32)


def test_a_token_takes_a_key_and_a_value_of_one_head():
    full, one = (t.cache_bytes_per_token(SHAPE) for t in (FullAttention(), MultiQueryAttention()))
    assert one == 2 * 8 * 4
    assert full == 4 * one


def test_one_head_of_keys_read_by_all():
    q, k = torch.randn(2, 4, 30, 8, dtype=torch.float64), torch.randn(2, 1, 30, 8).double()
    y = MultiQueryAttention().attend(q, k, k)
    for head in range(4):
        alone = FullAttention().attend(q[:, head : head + 1], k, k)
        torch.testing.assert_close(y[:, head : head + 1], alone)
