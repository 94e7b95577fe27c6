"""Facts of full attention."""

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from impls.attention import FullAttention
from impls.attention.interface import Work


def test_by_hand():
    q = torch.tensor([[[[0.0], [1.0]]]])
    k = torch.tensor([[[[0.0], [2.0]]]])
    v = torch.tensor([[[[1.0], [3.0]]]])
    y = FullAttention().attend(q, k, v, scale=1.0)
    weight = torch.tensor(2.0).sigmoid()
    torch.testing.assert_close(y.flatten(), torch.stack((torch.tensor(1.0), 1 + 2 * weight)))


def test_offset_0_is_torchs_is_causal_and_the_default_is_not():
    q, k = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 5, 4)
    torchs = F.scaled_dot_product_attention(q, k, k, is_causal=True)
    torch.testing.assert_close(FullAttention().attend(q, k, k, offset=0), torchs)
    assert not torch.allclose(FullAttention().attend(q, k, k), torchs)


def test_flops_are_those_that_torch_counts():
    work = Work(batch=2, n_heads=4, n_kv_heads=2, n_q=33, n_k=65, d_head=16, causal=False)
    q, k = torch.randn(2, 4, 33, 16), torch.randn(2, 2, 65, 16)
    with FlopCounterMode(display=False) as counter:
        FullAttention().attend(q, k, k, causal=False)
    assert counter.get_total_flops() == FullAttention().flops(work)
