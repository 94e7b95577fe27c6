"""ALiBi: its slopes, Bloom's form of it, and FlexAttention with its score function."""

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from impls.positions._slopes import slopes
from impls.positions.alibi import ALiBi
from impls.positions.interface import Frame, LayerShape


def bias(shape, t, dtype=torch.float32):
    pos = torch.arange(t)[None]
    q = torch.zeros(1, shape.n_heads, t, 8, dtype=dtype)
    return ALiBi().build(shape).score_bias(q, q, Frame(pos, pos))


def test_eight_heads_have_the_slopes_of_the_paper():
    assert slopes(8) == [2.0**-h for h in range(1, 9)]


@pytest.mark.parametrize("n_heads", [1, 2, 3, 6, 7, 12, 20, 32, 71])
def test_slopes_are_those_of_bloom_for_any_number_of_heads(n_heads):
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    theirs = bloom.build_alibi_tensor(torch.ones(1, 2, dtype=torch.int64), n_heads, torch.float32)
    torch.testing.assert_close(torch.tensor(slopes(n_heads)), theirs[:, 0, 1])


@pytest.mark.parametrize("n_heads", [4, 6])
def test_weights_are_those_of_bloom_which_adds_what_the_softmax_takes_away(n_heads):
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    t = 40
    theirs = bloom.build_alibi_tensor(torch.ones(1, t, dtype=torch.int64), n_heads, torch.float32)
    ours = bias(LayerShape(n_heads=n_heads, n_kv_heads=n_heads), t)
    torch.manual_seed(0)
    scores = torch.randn(1, n_heads, t, t)
    hidden = torch.ones(t, t).triu(1).bool()
    both = [(scores + b).masked_fill(hidden, -torch.inf).softmax(-1) for b in (ours, theirs[None])]
    torch.testing.assert_close(both[0], both[1], atol=1e-6, rtol=0)


def test_the_penalty_is_symmetric_and_linear():
    found = bias(LayerShape(n_heads=4, n_kv_heads=4), 30)[0]
    distance = (torch.arange(30)[:, None] - torch.arange(30)).abs()
    assert torch.equal(found, -torch.tensor(slopes(4))[:, None, None] * distance)


def test_a_model_in_bfloat16_has_the_penalties_of_float32():
    shape = LayerShape(n_heads=6, n_kv_heads=6)
    pos = torch.arange(600)[None]
    q = torch.zeros(1, 6, 600, 8, dtype=torch.bfloat16)
    found = ALiBi().build(shape).bfloat16().score_bias(q, q, Frame(pos, pos))
    assert found.dtype == torch.float32
    assert torch.equal(found, bias(shape, 600))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_with_its_score_function_gives_the_same_output():
    shape, t = LayerShape(n_heads=4, n_kv_heads=4), 24
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 4, t, 16)
    causal = create_block_mask(lambda b, h, i, j: i >= j, 1, 1, t, t, device="cpu")
    modify = ALiBi().build(shape).score_mod()
    theirs = flex_attention(q, k, v, score_mod=modify, block_mask=causal)
    mask = bias(shape, t).masked_fill(torch.ones(t, t).triu(1).bool(), -torch.inf)
    ours = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)
