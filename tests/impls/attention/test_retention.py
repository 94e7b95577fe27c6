"""Facts of retention: decays by head, three forms, the layer's norm and gate."""

import pytest
import torch

from impls.attention.interface import LayerShape, PositionEncoding
from impls.attention.retention import Retention, log_decay

FORMS = (
    Retention(form="parallel"),
    Retention(form="recurrent"),
    Retention(chunk=1),
    Retention(chunk=16),
    Retention(chunk=64),
)


def heads(n_q=37, n_k=37, kv_heads=4):
    rng = torch.Generator().manual_seed(0)
    sizes = ((2, 4, n_q, 8), (2, kv_heads, n_k, 8), (2, kv_heads, n_k, 6))
    return [torch.randn(size, generator=rng, dtype=torch.float64) for size in sizes]


def test_decays_are_the_papers():
    assert log_decay(3).exp().tolist() == pytest.approx([0.96875, 0.984375, 0.9921875])


@pytest.mark.parametrize("recipe", FORMS, ids=str)
def test_every_form_is_flas(recipe, fla_naive):
    q, k, v = (x.float() for x in heads())
    oracle = fla_naive("retention").naive_retention(q, k, v)
    torch.testing.assert_close(recipe.attend(q, k, v), oracle, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("offset", [-3, 0, 4])
@pytest.mark.parametrize("recipe", FORMS, ids=str)
def test_every_form_is_the_sum_written_out(recipe, offset):
    q, k, v = heads(n_q=9, n_k=13, kv_heads=2)
    distance = torch.arange(9)[:, None] + offset - torch.arange(13)
    gamma = 1 - 2.0 ** (-5 - torch.arange(4, dtype=torch.float64))
    decay = torch.where(distance >= 0, gamma[:, None, None] ** distance, 0.0)
    k4, v4 = (x.repeat_interleave(2, dim=1) for x in (k, v))
    oracle = (8**-0.5 * q @ k4.mT * decay) @ v4
    y = recipe.attend(q, k, v, offset=offset)
    torch.testing.assert_close(y, oracle, rtol=1e-11, atol=1e-13)


def test_a_long_sequence_stays_finite_in_every_form():
    q = k = v = torch.ones(1, 8, 1000, 4)
    chunked, parallel = (Retention(form=f).attend(q, k, v) for f in ("chunked", "parallel"))
    assert chunked.isfinite().all()
    torch.testing.assert_close(chunked, parallel, rtol=1e-4, atol=1e-4)


def test_padding_between_tokens_neither_enters_nor_decays():
    q, k, v = heads()
    keep = torch.ones(2, 37, dtype=torch.bool)
    keep[:, 10:20] = False
    y = Retention(chunk=4).attend(q, k, v, keep=keep)[:, :, keep[0]]
    alone = Retention().attend(*(x[:, :, keep[0]] for x in (q, k, v)))
    torch.testing.assert_close(y, alone, rtol=1e-11, atol=1e-13)


def test_the_layer_normalises_heads_and_gates_them():
    shape = LayerShape(d_model=12, n_heads=2, n_kv_heads=1, d_head=4)
    layer = Retention().build(shape).double()
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    where = {"pos": torch.arange(9)[None], "encoding": PositionEncoding()}
    layer.q_proj.weight.data *= 1e4  # far above the norm's epsilon
    y = layer(x, **where)
    layer.q_proj.weight.data *= 1e4  # the norm undoes any scale of a head's output
    torch.testing.assert_close(layer(x, **where), y, rtol=1e-4, atol=1e-6)
    layer.g_proj.weight.data.zero_()
    assert not layer(x, **where).any()


def test_refusals_name_the_value():
    with pytest.raises(ValueError, match="expand_v must be at least 1, got 0"):
        Retention(expand_v=0)
    q, k, v = heads()
    with pytest.raises(ValueError, match="causal"):
        Retention().attend(q, k, v, causal=False)
