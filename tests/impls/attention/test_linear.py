"""Facts of linear attention: one sum, three ways to take it."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from impls.attention.interface import Work
from impls.attention.linear import LinearAttention

FORMS = (
    LinearAttention(form="parallel"),
    LinearAttention(form="recurrent"),
    LinearAttention(chunk=1),
    LinearAttention(chunk=16),
    LinearAttention(chunk=64),
)


def heads(n_q=37, n_k=37, seed=0):
    rng = torch.Generator().manual_seed(seed)
    sizes = ((2, 4, n_q, 8), (2, 2, n_k, 8), (2, 2, n_k, 6))
    return [torch.randn(size, generator=rng, dtype=torch.float64) for size in sizes]


def written_out(q, k, v, mask):
    fq, fk = F.elu(q) + 1, F.elu(k.repeat_interleave(2, dim=1)) + 1
    weights = (fq @ fk.mT) * mask
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-300) @ v.repeat_interleave(2, dim=1)


@pytest.mark.parametrize("recipe", FORMS, ids=str)
def test_every_form_is_the_sum_written_out(recipe):
    q, k, v = heads()
    oracle = written_out(q, k, v, torch.ones(37, 37).tril())
    torch.testing.assert_close(recipe.attend(q, k, v), oracle, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("offset", [-50, -3, 0, 4, 12, 50])
@pytest.mark.parametrize("recipe", FORMS, ids=str)
def test_offset_says_which_key_stands_beside_the_first_query(recipe, offset):
    q, k, v = heads(n_q=9, n_k=13)
    oracle = written_out(q, k, v, torch.ones(9, 13).tril(offset))
    y = recipe.attend(q, k, v, offset=offset)
    torch.testing.assert_close(y, oracle, rtol=1e-12, atol=1e-14)


def test_without_causality_every_query_reads_all():
    q, k, v = heads(n_q=9)
    oracle = written_out(q, k, v, torch.ones(9, 37))
    y = LinearAttention().attend(q, k, v, causal=False)
    torch.testing.assert_close(y, oracle, rtol=1e-12, atol=1e-14)


def test_a_scale_of_the_scores_cancels():
    q, k, v = heads()
    recipe = LinearAttention()
    assert torch.equal(recipe.attend(q, k, v, scale=7.0), recipe.attend(q, k, v))


def test_the_state_has_one_size_whatever_it_has_read():
    q, k, v = heads()
    state = LinearAttention().init_state(2, 37)
    sizes = set()
    for t in range(37):
        LinearAttention().step(q[:, :, t : t + 1], k[:, :, t : t + 1], v[:, :, t : t + 1], state)
        sizes.add(state.nbytes)
    assert sizes == {2 * 2 * 8 * (6 + 1) * 8}  # S and z of each sequence and key head
    assert state.length == 37


def test_flops_are_those_of_the_two_products():
    work = Work(batch=2, n_heads=4, n_kv_heads=4, n_q=37, n_k=37, d_head=8, causal=False)
    q = k = v = torch.randn(2, 4, 37, 8)
    with FlopCounterMode(display=False) as counter:
        LinearAttention().attend(q, k, v, causal=False)
    assert counter.get_total_flops() == LinearAttention().flops(work)


def test_refusals_name_the_value():
    with pytest.raises(ValueError, match="got 0"):
        LinearAttention(chunk=0)
    q, k, v = heads()
    with pytest.raises(ValueError, match="bias"):
        LinearAttention().attend(q, k, v, bias=torch.zeros(1, 4, 37, 37))
