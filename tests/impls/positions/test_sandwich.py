"""Sandwich: inner products of embeddings, and FlexAttention with its score function."""

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention.flex_attention import flex_attention

from impls.positions._sinusoids import sinusoids
from impls.positions.interface import Frame, LayerShape
from impls.positions.sandwich import Sandwich

SHAPE = LayerShape(n_heads=4, n_kv_heads=4)


def bias(t, dtype):
    pos = torch.arange(t)[None]
    q = torch.zeros(1, 4, t, 8, dtype=dtype)
    return Sandwich(width=32).build(SHAPE).score_bias(q, q, Frame(pos, pos))


def test_it_is_the_inner_product_of_sinusoids_over_the_ratio_of_the_head():
    table = sinusoids(torch.arange(30), 32, 10_000.0)
    ratios = torch.tensor([2, 4, 6, 8])  # 8 h / H
    expected = (table @ table.T) / ratios[:, None, None]
    torch.testing.assert_close(bias(30, torch.float64)[0], expected)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_with_its_score_function_gives_the_same_output():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 4, 24, 16)
    theirs = flex_attention(q, k, v, score_mod=Sandwich(width=32).build(SHAPE).score_mod())
    ours = F.scaled_dot_product_attention(q, k, v, attn_mask=bias(24, torch.float32))
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize("options", [{"width": 3}, {"width": 0}, {"base": 1.0}])
def test_what_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match="got"):
        Sandwich(**options)
