"""Facts of the gated delta rule: what it stores, three forms, the whole layer against peers."""

import inspect

import pytest
import torch

from impls.attention._recurrent import delta_rule, scan
from impls.attention.gated_delta import GatedDeltaNet
from impls.attention.interface import LayerShape, PositionEncoding


def written(k, v, log_a=0.0, b=1.0, chunk=64):
    """The memory after writing v at k one by one."""
    tokens = [k, k, v, torch.full_like(k[..., :1], log_a), torch.full_like(k[..., :1], b)]
    return scan(delta_rule, k.new_zeros(k.shape[-1], v.shape[-1]), tuple(tokens), chunk)[1]


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_orthonormal_keys_are_retrieved_and_overwritten_exactly(chunk):
    rng = torch.Generator().manual_seed(0)
    keys, _ = torch.linalg.qr(torch.randn(8, 8, generator=rng, dtype=torch.float64))
    old, new = torch.randn(2, 8, 5, generator=rng, dtype=torch.float64)
    memory = written(torch.cat((keys, keys[:3])), torch.cat((old, new[:3])), chunk=chunk)
    torch.testing.assert_close(keys @ memory, torch.cat((new[:3], old[3:])), rtol=0, atol=2e-15)


def test_without_writing_the_memory_only_decays():
    rng = torch.Generator().manual_seed(0)
    k, v = torch.randn(2, 10, 4, generator=rng, dtype=torch.float64)
    memory = torch.randn(4, 4, generator=rng, dtype=torch.float64)
    gates = torch.full((10, 1), -0.1, dtype=torch.float64), torch.zeros(10, 1, dtype=torch.float64)
    _, after = scan(delta_rule, memory, (k, k, v, *gates), 4)
    torch.testing.assert_close(after, memory * torch.tensor(-1.0, dtype=torch.float64).exp())


@pytest.mark.parametrize("chunk", [1, 16, 64, 100])
def test_every_form_is_flas_recurrence(chunk, fla_naive):
    pytest.importorskip("einops")
    rng = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 100, 3, 8, generator=rng)
    k = torch.nn.functional.normalize(k, dim=-1)
    log_a, b = -torch.rand(2, 100, 3, generator=rng), torch.rand(2, 100, 3, generator=rng)
    oracle, memory = fla_naive("gated_delta_rule").naive_recurrent_gated_delta_rule(
        q, k, v, b, log_a, scale=0.5, output_final_state=True
    )
    tokens = [x.transpose(1, 2) for x in (0.5 * q, k, v, log_a[..., None], b[..., None])]
    y, after = scan(delta_rule, torch.zeros(8, 8), tuple(tokens), chunk)
    torch.testing.assert_close(y.transpose(1, 2), oracle, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after, memory, rtol=1e-4, atol=1e-5)


def test_the_layer_is_transformers_qwen3_next(monkeypatch):
    qwen = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    # Where fla is installed, transformers calls its kernels, which need a GPU.
    plain = inspect.unwrap(qwen.torch_chunk_gated_delta_rule)
    monkeypatch.setattr(qwen, "torch_chunk_gated_delta_rule", plain)
    config = qwen.Qwen3NextConfig(
        hidden_size=24,
        linear_num_key_heads=3,
        linear_num_value_heads=3,
        linear_key_head_dim=8,
        linear_value_head_dim=16,
        rms_norm_eps=1e-5,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
    )
    torch.manual_seed(0)
    peer = qwen.Qwen3NextGatedDeltaNet(config, 0)
    peer.norm.weight.data.uniform_(0.5, 1.5)
    layer = GatedDeltaNet().build(LayerShape(d_model=24, n_heads=3, n_kv_heads=3, d_head=8))
    take_weights(layer, peer)
    x = torch.randn(2, 70, 24)
    y = layer(x, pos=torch.arange(70)[None], encoding=PositionEncoding())
    torch.testing.assert_close(y, peer(x), rtol=1e-5, atol=1e-5)


def take_weights(layer, peer):
    """qwen3_next keeps a head's q, k, v, z, and its b, a, together."""
    q, k, v, z = peer.in_proj_qkvz.weight.unflatten(0, (3, 48)).split((8, 8, 16, 16), dim=1)
    b, a = peer.in_proj_ba.weight.unflatten(0, (3, 2)).split((1, 1), dim=1)
    ours = {"q": q, "k": k, "v": v, "g": z, "b": b, "a": a}
    for name, weight in ours.items():
        getattr(layer, f"{name}_proj").weight.data = weight.detach().flatten(0, 1)
    layer.o_proj.weight.data = peer.out_proj.weight.detach()
    layer.conv_weight.data = peer.conv1d.weight.detach()[:, 0].mT.contiguous()
    layer.A_log.data, layer.dt_bias.data = peer.A_log.detach(), peer.dt_bias.detach()
    layer.norm_weight.data = peer.norm.weight.detach()


def test_the_state_has_one_size_whatever_it_has_read():
    shape = LayerShape(d_model=12, n_heads=4, n_kv_heads=2, d_head=4)
    layer = GatedDeltaNet().build(shape)
    state, sizes = layer.init_state(2, 9), set()
    for t in range(9):
        pos = torch.tensor([[t]])
        layer(torch.randn(2, 1, 12), pos=pos, encoding=PositionEncoding(), state=state)
        sizes.add(state.nbytes)
    memory, channels = 2 * 2 * 4 * 8, 4 * 4 + 2 * 4 + 2 * 8
    assert sizes == {4 * (memory + 2 * 3 * channels)}
    assert state.length == 9


class Biased(PositionEncoding):
    def score_bias(self, q, k, frame):
        return frame.distance[:, None].to(q.dtype)


def test_an_encoding_that_biases_scores_is_refused_by_name():
    layer = GatedDeltaNet().build(LayerShape())
    with pytest.raises(ValueError, match="Biased"):
        layer(torch.zeros(1, 3, 64), pos=torch.arange(3)[None], encoding=Biased())


def test_refusals_name_the_value():
    with pytest.raises(ValueError, match="conv must be at least 1, got 0"):
        GatedDeltaNet(conv=0)
    layer = GatedDeltaNet().build(LayerShape())
    where = {"pos": torch.arange(3)[None], "encoding": PositionEncoding()}
    with pytest.raises(ValueError, match="causal"):
        layer(torch.zeros(1, 3, 64), **where, causal=False)
