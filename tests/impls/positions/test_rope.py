"""RoPE: distances, norms, layouts, precision, and the two canonical implementations."""

import pytest
import torch

from impls.positions._rotary import inverse_frequencies, rotated
from impls.positions.interface import Frame, LayerShape
from impls.positions.rope import RoPE

SHAPE = LayerShape(n_heads=4, n_kv_heads=2, d_head=16, max_len=64)


def vectors(t, dtype=torch.float64):
    torch.manual_seed(0)
    return torch.randn(2, 4, t, 16, dtype=dtype), torch.randn(2, 2, t, 16, dtype=dtype)


def scores(encoding, q, k, start):
    pos = torch.arange(start, start + q.shape[2])[None]
    frame = Frame(pos, pos)
    keys = encoding.keys(k, frame).repeat_interleave(2, dim=1)
    return encoding.queries(q, frame) @ keys.mT


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_moving_by_a_hundred_thousand_changes_no_score(layout):
    encoding, (q, k) = RoPE(layout=layout).build(SHAPE), vectors(17)
    difference = scores(encoding, q, k, 100_000) - scores(encoding, q, k, 0)
    assert difference.abs().max() <= 1e-10


def test_norms_are_kept():
    q, _ = vectors(50)
    pos = torch.arange(1_000, 1_050)[None]
    turned = RoPE().build(SHAPE).queries(q, Frame(pos, pos))
    torch.testing.assert_close(turned.norm(dim=-1), q.norm(dim=-1))


def test_position_zero_turns_nothing():
    q, _ = vectors(1)
    zero = torch.zeros(1, 1, dtype=torch.int64)
    assert torch.equal(RoPE().build(SHAPE).queries(q, Frame(zero, zero)), q)


def test_interleaved_is_half_with_its_components_permuted():
    q, _ = vectors(20)
    angles = torch.arange(20.0, dtype=torch.float64)[:, None] * inverse_frequencies(16, 10_000.0)
    pairs_apart = torch.arange(16).reshape(8, 2).T.flatten()  # 0, 2, .., 14, 1, 3, .., 15
    half = rotated(q[..., pairs_apart], angles, "half")
    assert torch.equal(rotated(q, angles, "interleaved")[..., pairs_apart], half)


def test_a_partial_rotation_leaves_the_rest_alone():
    q, _ = vectors(9)
    pos = torch.arange(9)[None]
    turned = RoPE(partial=0.25).build(SHAPE).queries(q, Frame(pos, pos))
    assert torch.equal(turned[..., 4:], q[..., 4:])
    narrow = RoPE().build(LayerShape(d_head=4)).queries(q[..., :4], Frame(pos, pos))
    assert torch.equal(turned[..., :4], narrow)


def test_angles_are_never_in_bfloat16():
    pos, theta = torch.tensor([4095]), inverse_frequencies(128, 10_000.0)
    exact = (pos * theta).cos()
    naive = (pos.bfloat16() * theta.bfloat16()).cos()
    assert (naive.double() - exact).abs().max() > 0.5  # what rotating in the model's dtype does

    torch.manual_seed(0)
    q = torch.randn(1, 4, 1, 128, dtype=torch.bfloat16)
    encoding, frame = RoPE().build(LayerShape(d_head=128)), Frame(pos[None], pos[None])
    right = encoding.queries(q.double(), frame)
    rounding = 2**-8 * right.abs() + 1e-6
    assert ((encoding.queries(q, frame).double() - right).abs() <= rounding).all()


def test_it_is_the_rotation_of_llama():
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    q, k = vectors(40, torch.float32)
    pos = torch.arange(7, 47)[None]
    angles = (pos[..., None] * inverse_frequencies(16, 10_000.0)).repeat(1, 1, 2)
    cos, sin = angles.cos().float(), angles.sin().float()
    theirs = llama.apply_rotary_pos_emb(q, k, cos, sin)
    encoding, frame = RoPE().build(SHAPE), Frame(pos, pos)
    torch.testing.assert_close(encoding.queries(q, frame), theirs[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(encoding.keys(k, frame), theirs[1], atol=1e-6, rtol=0)


def test_its_angles_are_those_of_llama():
    configuration = pytest.importorskip("transformers.models.llama.configuration_llama")
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = configuration.LlamaConfig(
        hidden_size=64,
        num_attention_heads=4,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
    )
    pos = torch.arange(100)[None]
    cos, sin = llama.LlamaRotaryEmbedding(config)(torch.zeros(()), pos)
    q, k = vectors(100, torch.float32)
    theirs = llama.apply_rotary_pos_emb(q, k, cos, sin)[0]
    ours = RoPE(base=500_000.0).build(SHAPE).queries(q, Frame(pos, pos))
    torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0)  # their angles are float32


def test_it_is_the_rotation_of_gpt_j():
    gptj = pytest.importorskip("transformers.models.gptj.modeling_gptj")
    q, _ = vectors(40, torch.float32)
    pos = torch.arange(40)[None]
    sin, cos = gptj.create_sinusoidal_positions(40, 16)[None].chunk(2, dim=-1)
    theirs = gptj.apply_rotary_pos_emb(q.transpose(1, 2), sin, cos).transpose(1, 2)
    ours = RoPE(layout="interleaved").build(SHAPE).queries(q, Frame(pos, pos))
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)  # their angles are float32


@pytest.mark.parametrize("options", [{"base": 1.0}, {"partial": 0.0}, {"partial": 1.5}])
def test_what_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match="got"):
        RoPE(**options)


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="3 of 6 components"):
        RoPE(partial=0.5).build(LayerShape(d_head=6))
