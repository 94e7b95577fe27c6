"""Facts of MoBA: which blocks a query reads, and its limits."""

import pytest
import torch

from impls.attention import _routing
from impls.attention.full import FullAttention
from impls.attention.interface import Work
from impls.attention.moba import MoBA


def heads(n_q=37, n_k=37):
    rng = torch.Generator().manual_seed(0)
    sizes = ((2, 4, n_q, 8), (2, 2, n_k, 8), (2, 2, n_k, 6))
    return [torch.randn(size, generator=rng, dtype=torch.float64) for size in sizes]


def one_by_one(q, k, v, offset, block, top_k):
    """The paper's rule for one query and head at a time."""
    y = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    for b, h, i in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).tolist():
        keys, values, last = k[b, h // 2], v[b, h // 2], i + offset
        if last < 0:
            continue
        own = last // block
        means = [keys[n * block : (n + 1) * block].mean(0) for n in range(own)]
        liking = torch.tensor([float(q[b, h, i] @ mean) for mean in means])
        best = liking.argsort(descending=True)[: top_k - 1].tolist()
        read = [j for j in range(last + 1) if j // block in {*best, own}]
        weights = (8**-0.5 * keys[read] @ q[b, h, i]).softmax(0)
        y[b, h, i] = weights @ values[read]
    return y


@pytest.mark.parametrize(("n_q", "offset"), [(37, 0), (5, 32), (37, -3)])
@pytest.mark.parametrize(("block", "top_k"), [(4, 1), (4, 3), (5, 2), (16, 2)])
def test_it_is_the_papers_rule_query_by_query(n_q, offset, block, top_k):
    q, k, v = heads(n_q)
    y = MoBA(block=block, top_k=top_k).attend(q, k, v, offset=offset)
    oracle = one_by_one(q, k, v, offset, block, top_k)
    torch.testing.assert_close(y, oracle, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("n_q", [37, 3])
def test_all_blocks_chosen_is_full_attention(n_q):
    q, k, v = heads(n_q)
    bias = torch.randn(1, 4, n_q, 37, dtype=torch.float64)
    y = MoBA(block=8, top_k=5).attend(q, k, v, bias=bias)
    full = FullAttention().attend(q, k, v, bias=bias)
    torch.testing.assert_close(y, full, rtol=1e-12, atol=1e-14)


def test_padding_anywhere_moves_no_border_of_a_block():
    q, k, v = heads()
    keep = torch.ones(2, 37, dtype=torch.bool)
    keep[:, :3] = keep[:, 10:15] = keep[:, 30:] = False
    recipe = MoBA(block=4, top_k=2)
    y = recipe.attend(q, k, v, keep=keep)[:, :, keep[0]]
    alone = recipe.attend(*(x[:, :, keep[0]] for x in (q, k, v)))
    torch.testing.assert_close(y, alone, rtol=1e-12, atol=1e-14)


def test_queries_are_taken_some_at_a_time(monkeypatch):
    q, k, v = heads()
    recipe = MoBA(block=4, top_k=2)
    whole = recipe.attend(q, k, v)
    monkeypatch.setattr(_routing, "QUERIES", 5)
    torch.testing.assert_close(recipe.attend(q, k, v), whole, rtol=1e-12, atol=1e-14)


def test_pairs_are_those_read_and_those_compared():
    work = Work(n_q=10, n_k=10)
    # Blocks of 4: own keys 1 2 3 4 1 2 3 4 1 2, a chosen block from key 4 on, means of the past.
    assert MoBA(block=4, top_k=2).pairs(work) == 23 + 6 * 4 + (4 * 1 + 2 * 2) // 2
    assert MoBA(block=16, top_k=2).pairs(work) == work.pairs


def test_refusals_name_the_value():
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        MoBA(top_k=0)
    with pytest.raises(ValueError, match="causal"):
        MoBA().attend(*heads(), causal=False)
