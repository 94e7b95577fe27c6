"""Facts of grouped-query attention."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from impls.attention import FullAttention, GroupedQueryAttention, MultiQueryAttention
from impls.attention.interface import LayerShape, Work

SHAPE = LayerShape(d_model=32, n_heads=4, n_kv_heads=4, d_head=8)


def test_groups_lie_between_multi_head_and_multi_query():
    layers = [GroupedQueryAttention(n_groups=n).build(SHAPE).k_proj.out_features for n in (4, 2, 1)]
    assert layers == [32, 16, 8]
    ends = (FullAttention(), MultiQueryAttention())
    for n, end in zip((4, 1), ends, strict=True):
        technique = GroupedQueryAttention(n_groups=n)
        assert technique.cache_bytes_per_token(SHAPE) == end.cache_bytes_per_token(SHAPE)


@pytest.mark.parametrize("n_q", [1, 30])  # decoding takes another route
def test_equals_full_attention_with_repeated_keys(n_q):
    q = torch.randn(2, 4, n_q, 8, dtype=torch.float64)
    k, v = (torch.randn(2, 2, 30, 8, dtype=torch.float64) for _ in "kv")
    y = GroupedQueryAttention().attend(q, k, v)
    repeated = (x.repeat_interleave(2, dim=1) for x in (k, v))
    torch.testing.assert_close(y, FullAttention().attend(q, *repeated))


def test_flops_are_those_that_torch_counts():
    work = Work(batch=2, n_heads=4, n_kv_heads=2, n_q=3, n_k=65, d_head=16, causal=False)
    q, k = torch.randn(2, 4, 3, 16), torch.randn(2, 2, 65, 16)
    with FlopCounterMode(display=False) as counter:
        GroupedQueryAttention().attend(q, k, k, causal=False)
    assert counter.get_total_flops() == GroupedQueryAttention().flops(work)


def test_heads_that_make_no_equal_groups_are_refused():
    with pytest.raises(ValueError, match="4 query heads make no 3 equal groups"):
        GroupedQueryAttention(n_groups=3).build(SHAPE)
