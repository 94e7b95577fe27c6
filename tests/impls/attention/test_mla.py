"""Facts of latent attention: two forms of one layer, a small cache, deepseek_v3's numbers."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from impls.attention.interface import LayerShape, PositionEncoding, Work
from impls.attention.mla import MLA
from impls.positions.rope import RoPE

SHAPE = LayerShape(d_model=24, n_heads=3, n_kv_heads=3, d_head=8)
POS = torch.arange(13)[None]


class Biased(PositionEncoding):
    """A score bias by distance, and a value bias by weights."""

    def score_bias(self, q, k, frame):
        return -0.3 * frame.distance[:, None].to(q.dtype)


class ValueBiased(PositionEncoding):
    def value_bias(self, weights, frame):
        return weights.square().sum(-1, keepdim=True)


def built(recipe, seed=0):
    torch.manual_seed(seed)
    return recipe.build(SHAPE).double()


@pytest.mark.parametrize("encoding", [RoPE().build(SHAPE), Biased()], ids=["rope", "bias"])
@pytest.mark.parametrize("q_rank", [None, 6])
def test_absorbed_equals_expanded(encoding, q_rank):
    x = torch.randn(2, 13, 24, dtype=torch.float64)
    expanded, absorbed = (
        built(MLA(q_rank=q_rank, kv_rank=10, d_nope=6, d_v=5, form=form))(
            x, pos=POS, encoding=encoding
        )
        for form in ("expanded", "absorbed")
    )
    torch.testing.assert_close(absorbed, expanded, rtol=0, atol=1e-14)


def test_a_bias_of_values_is_added_in_every_form():
    x = torch.randn(2, 13, 24, dtype=torch.float64)
    layer = built(MLA())
    y = layer(x, pos=POS, encoding=ValueBiased())
    assert not torch.allclose(y, layer(x, pos=POS, encoding=PositionEncoding()))
    state = layer.init_state(2, 13)
    steps = [
        layer(x[:, t : t + 1], pos=POS[:, t : t + 1], encoding=ValueBiased(), state=state)
        for t in range(13)
    ]
    torch.testing.assert_close(torch.cat(steps, dim=1), y, rtol=0, atol=1e-14)


def test_the_cache_holds_the_latent_and_one_key():
    layer, state = built(MLA()), built(MLA()).init_state(2, 13)
    x = torch.randn(2, 13, 24, dtype=torch.float64)
    layer(x, pos=POS, encoding=RoPE().build(SHAPE), state=state)
    assert state.nbytes == 2 * 13 * MLA().cache_bytes_per_token(SHAPE, itemsize=8)


def test_deepseek_v2_caches_576_numbers_a_token():
    shape = LayerShape(d_model=5120, n_heads=128, n_kv_heads=128, d_head=64)
    recipe = MLA(kv_rank=512, d_nope=128, q_rank=1536)
    assert recipe.cache_bytes_per_token(shape, itemsize=1) == 576


@pytest.mark.parametrize("q_rank", [None, 6])
def test_the_layer_is_transformers_deepseek_v3(q_rank):
    deepseek = pytest.importorskip("transformers.models.deepseek_v3.modeling_deepseek_v3")
    config = deepseek.DeepseekV3Config(
        hidden_size=24,
        num_attention_heads=3,
        num_key_value_heads=3,
        q_lora_rank=q_rank,
        kv_lora_rank=10,
        qk_nope_head_dim=6,
        qk_rope_head_dim=8,
        v_head_dim=5,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    peer = deepseek.DeepseekV3Attention(config, 0)
    layer = MLA(q_rank=q_rank, kv_rank=10, d_nope=6, d_v=5).build(SHAPE)
    queries = ("q_a_proj", "q_a_layernorm", "q_b_proj") if q_rank else ("q_proj",)
    parts = layer.q_proj if q_rank else [layer.q_proj]
    pairs = dict(zip(queries, parts, strict=True)) | {
        "kv_a_proj_with_mqa": layer.kv_down,
        "kv_a_layernorm": layer.kv_norm,
        "kv_b_proj": layer.kv_up,
        "o_proj": layer.o_proj,
    }
    for name, module in pairs.items():
        module.load_state_dict(getattr(peer, name).state_dict())
    x = torch.randn(2, 13, 24)
    where = deepseek.DeepseekV3RotaryEmbedding(config)(x, POS)
    hidden = torch.full((13, 13), float("-inf")).triu(1)[None, None]
    oracle, _ = peer(x, where, hidden)
    encoding = RoPE(layout="interleaved").build(SHAPE)
    y = layer(x, pos=POS, encoding=encoding)
    torch.testing.assert_close(y, oracle, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("q_rank", [None, 6])
def test_flops_are_those_counted(q_rank):
    recipe = MLA(q_rank=q_rank, kv_rank=10, d_nope=6, d_v=14)  # as wide as a key: no filling up
    x = torch.randn(2, 13, 24)
    layer = recipe.build(SHAPE)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        layer(x, pos=POS, encoding=PositionEncoding(), causal=False)
    work = Work(batch=2, n_heads=3, n_kv_heads=3, n_q=13, n_k=13, d_head=8, causal=False)
    assert counter.get_total_flops() == recipe.flops(work)


def test_refusals_name_the_value():
    with pytest.raises(ValueError, match="kv_rank must be at least 1 or None, got 0"):
        MLA(kv_rank=0)
    with pytest.raises(ValueError, match="not 1"):
        MLA().build(LayerShape(n_heads=4, n_kv_heads=1))
