"""Longformer against its paper's sets and transformers' implementation."""

import pytest
import torch

from impls.attention import Longformer
from impls.models.hooks import LayerShape, PositionEncoding

SHAPE = LayerShape(d_model=32, n_heads=4, n_kv_heads=4, d_head=8)


@pytest.mark.parametrize(("dilation", "causal"), [(1, False), (3, False), (1, True), (3, True)])
def test_window_dilation_and_global_tokens(dilation, causal):
    technique = Longformer(window=8, dilation=dilation, n_global=2)
    mask = technique.mask(60, 60, causal=causal, offset=0, n_heads=2)[0, 0]
    for i, row in enumerate(mask.tolist()):
        for j, seen in enumerate(row):
            near = any(abs(i - j) == step * dilation for step in range(5))
            assert seen == ((near or i < 2 or j < 2) and (j <= i or not causal))


@pytest.mark.parametrize("n_global", [0, 3])
def test_equals_transformers_with_its_weights(n_global):
    transformers = pytest.importorskip("transformers")
    modeling = pytest.importorskip("transformers.models.longformer.modeling_longformer")
    torch.manual_seed(0)
    config = transformers.LongformerConfig(
        hidden_size=32, num_attention_heads=4, attention_window=[16], num_hidden_layers=1
    )
    theirs = modeling.LongformerSelfAttention(config, layer_id=0).double().eval()
    ours = Longformer(window=16, n_global=n_global).build(SHAPE).double()
    pairs = {
        "q_proj": "query", "k_proj": "key", "v_proj": "value",
        "q_global": "query_global", "k_global": "key_global", "v_global": "value_global",
    }  # fmt: skip
    with torch.no_grad():
        for mine, other in pairs.items():
            getattr(ours, mine).weight.copy_(getattr(theirs, other).weight)
            getattr(theirs, other).bias.zero_()
        ours.o_proj.weight.copy_(torch.eye(32))
    x = torch.randn(2, 64, 32, dtype=torch.float64)  # theirs wants a multiple of the window
    keep = torch.ones(2, 64, dtype=torch.bool)
    keep[1, 50:] = False
    kind = torch.where(keep, 0.0, -10000.0).double()  # below 0: padding; above: global
    kind[:, :n_global] = 10000.0
    expected = theirs(
        x,
        attention_mask=kind,
        is_index_masked=kind < 0,
        is_index_global_attn=kind > 0,
        is_global_attn=n_global > 0,
    )[0]
    y = ours(x, pos=torch.arange(64)[None], encoding=PositionEncoding(), keep=keep, causal=False)
    # Their softmax is in float32: each weight is off by up to its 6e-8.
    torch.testing.assert_close(y[keep], expected[keep], rtol=0, atol=5e-7)


def test_global_tokens_have_projections_of_their_own():
    layer = Longformer(window=4, n_global=1).build(SHAPE)
    x, pos = torch.randn(1, 20, 32), torch.arange(20)[None]
    before = layer(x, pos=pos, encoding=PositionEncoding(), causal=False)
    torch.nn.init.zeros_(layer.v_global.weight)
    after = layer(x, pos=pos, encoding=PositionEncoding(), causal=False)
    assert not after[:, 0].any()
    assert torch.equal(before[:, 1:], after[:, 1:])


def test_an_odd_window_is_refused():
    with pytest.raises(ValueError, match="window must be even and at least 2, got 7"):
        Longformer(window=7)
