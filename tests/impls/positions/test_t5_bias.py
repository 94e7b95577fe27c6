"""T5's bias: equal to transformers' in every bit."""

import pytest
import torch

from impls.positions.interface import Frame, LayerShape
from impls.positions.t5_bias import T5Bias


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("recipe", [T5Bias(), T5Bias(n_buckets=8, max_distance=20)])
def test_the_bias_is_that_of_transformers(recipe, causal):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    config = pytest.importorskip("transformers").T5Config(
        d_model=32,
        d_kv=8,
        num_heads=4,
        is_decoder=causal,
        relative_attention_num_buckets=recipe.n_buckets,
        relative_attention_max_distance=recipe.max_distance,
    )
    theirs = t5.T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    encoding = recipe.build(LayerShape(d_model=32, causal=causal))
    encoding.table.data.copy_(theirs.relative_attention_bias.weight)
    pos = torch.arange(300)[None]
    q = torch.zeros(1, 4, 300, 8)
    found = encoding.score_bias(q, q, Frame(pos, pos, causal=causal))
    assert torch.equal(found, theirs.compute_bias(300, 300))
    last = Frame(pos[:, 290:], pos, causal=causal)
    expected = theirs.compute_bias(10, 300, past_seen_tokens=290)
    assert torch.equal(encoding.score_bias(q[:, :, 290:], q, last), expected)


def test_a_product_is_not_scaled_unless_asked_for():
    assert T5Bias().build(LayerShape()).scale(16) == 1.0
    assert T5Bias(scaled=True).build(LayerShape()).scale(16) == 0.25


def test_one_table_serves_all_layers():
    encoding = T5Bias().build(LayerShape(n_layers=3))
    assert sum(p.numel() for p in encoding.parameters()) == 32 * 4
    assert encoding.at(0) is encoding.at(2)


@pytest.mark.parametrize("options", [{"n_buckets": 6}, {"max_distance": 16}])
def test_what_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match="got"):
        T5Bias(**options)
