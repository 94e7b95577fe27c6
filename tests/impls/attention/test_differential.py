"""Facts of differential attention: lambda, its degenerate case, diffllama's numbers."""

import pytest
import torch

from impls.attention.differential import DifferentialAttention, difference, lambda_init
from impls.attention.interface import LayerShape, PositionEncoding
from impls.models.attention import Dense
from impls.positions.rope import RoPE

SHAPE = LayerShape(d_model=32, n_heads=4, n_kv_heads=2, d_head=8)
POS = torch.arange(13)[None]


def test_lambda_starts_as_in_the_paper():
    started = [lambda_init(layer - 1) for layer in (1, 2, 6, 12)]
    assert started == pytest.approx([0.2, 0.3555, 0.6661, 0.7779], abs=5e-5)


def test_without_the_second_softmax_it_is_standard_attention():
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, h, 13, 8, generator=rng, dtype=torch.float64) for h in (4, 2, 2))
    wide = torch.cat(v.chunk(2, dim=1), dim=-1)
    standard = Dense().attend(q[:, :2], k[:, :1], wide)
    y = difference(q, k, v, torch.tensor(0.0))
    torch.testing.assert_close(y, standard, rtol=1e-12, atol=1e-14)


def test_equal_softmaxes_cancel_but_for_lambda():
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, 13, 8, generator=rng, dtype=torch.float64) for _ in range(3))
    q, k = (torch.cat((x[:, :1], x[:, :1]), dim=1) for x in (q, k))
    y = difference(q, k, v, torch.tensor(1.0))
    torch.testing.assert_close(y, torch.zeros_like(y), rtol=0, atol=1e-15)


@pytest.mark.parametrize("layer_index", [0, 3])
def test_the_layer_is_transformers_diffllama(layer_index):
    diffllama = pytest.importorskip("transformers.models.diffllama.modeling_diffllama")
    config = diffllama.DiffLlamaConfig(
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=4,
        rms_norm_eps=1e-5,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    peer = diffllama.DiffLlamaAttention(config, layer_index)
    layer = DifferentialAttention().build(SHAPE, layer_index)
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        getattr(layer, name).weight.data = getattr(peer, name).weight.detach()
    layer.kernel.lambda_q.data = torch.stack((peer.lambda_q1, peer.lambda_q2)).detach()
    layer.kernel.lambda_k.data = torch.stack((peer.lambda_k1, peer.lambda_k2)).detach()
    x = torch.randn(2, 13, 32)
    where = diffllama.DiffLlamaRotaryEmbedding(config)(x, POS)
    hidden = torch.full((13, 13), float("-inf")).triu(1)[None, None]
    oracle, _ = peer(x, where, hidden)
    y = layer(x, pos=POS, encoding=RoPE().build(SHAPE))
    torch.testing.assert_close(y, oracle, rtol=1e-5, atol=1e-5)


class ValueBiased(PositionEncoding):
    def value_bias(self, weights, frame):
        return weights[..., :1]


def test_refusals_name_the_value():
    with pytest.raises(ValueError, match=r"lambda_std must be at least 0, got -0\.1"):
        DifferentialAttention(lambda_std=-0.1)
    with pytest.raises(ValueError, match="n_kv_heads 1 must be even"):
        DifferentialAttention().build(LayerShape(n_heads=4, n_kv_heads=1))
    layer = DifferentialAttention().build(SHAPE)
    with pytest.raises(ValueError, match="ValueBiased"):
        layer(torch.zeros(1, 13, 32), pos=POS, encoding=ValueBiased())
