"""Facts of native sparse attention: its three branches, query by query."""

import warnings

import pytest
import torch

from impls.attention import _routing
from impls.attention._views import Views, overlaps
from impls.attention.interface import LayerShape, PositionEncoding, Work
from impls.attention.nsa import NSA

SMALL = NSA(compress=4, stride=2, block=8, selected=4, window=5)
N, H, G, D = 61, 4, 2, 8
POSITIONLESS = PositionEncoding()


def branches():
    rng = torch.Generator().manual_seed(0)
    sizes = ((1, H, N, D), (1, 3 * G, N, D), (1, 3 * G, N, D))
    return [torch.randn(size, generator=rng, dtype=torch.float64) for size in sizes]


def views(recipe=SMALL):
    torch.manual_seed(0)
    return Views(recipe, D).double()


def blocks_read(p, i):
    """Equation 9 and the forced blocks, from p of a group's heads (H/G, n_c), in plain loops."""
    own, chunks = i // SMALL.block, SMALL.block // SMALL.stride
    score = {}
    for b in range(own + 1):
        inside = [b * chunks + m - n for m in range(chunks) for n in range(2)]  # l / stride is 2
        score[b] = sum(float(p[:, c].sum()) for c in inside if 0 <= c < p.shape[1])
    forced = {0, own, max(own - 1, 0)}
    rest = sorted(set(score) - forced, key=score.get, reverse=True)
    return forced | set(rest[: SMALL.selected - len(forced)])


def test_every_branch_is_the_papers_query_by_query():
    q, k, v = branches()
    module = views()
    summaries, selected, window = module(q, k, v, None).detach()[:, 0]
    k_c, v_c = module.compress_k(k[:, :G])[0].detach(), module.compress_v(v[:, :G])[0].detach()
    for g, i in torch.cartesian_prod(torch.arange(G), torch.arange(N)).tolist():
        mine, whole = q[0, 2 * g : 2 * g + 2, i], max(0, (i + 1 - 4) // 2 + 1)
        p = (mine @ k_c[g, :whole].mT).softmax(-1)
        near = range(max(0, i - 4), i + 1)
        read = [j for j in range(i + 1) if j // SMALL.block in blocks_read(p, i)]
        heads = slice(2 * g, 2 * g + 2)
        torch.testing.assert_close(summaries[heads, i], p @ v_c[g, :whole])
        for got, branch, keys in ((selected, 1, read), (window, 2, list(near))):
            ks, vs = k[0, branch * G + g, keys], v[0, branch * G + g, keys]
            torch.testing.assert_close(got[heads, i], (mine @ ks.mT).softmax(-1) @ vs)


def test_a_compressed_block_is_one_map_of_its_keys_and_their_places():
    module = views().compress_k
    module.position.data.normal_()
    k = branches()[1]
    third = module(k)[0, 0, 2]
    torch.testing.assert_close(third, module.mlp((k[0, 0, 4:8].mT + module.position).flatten()))


def test_overlaps_are_the_papers_sizes():
    counts = overlaps(torch.zeros(11), 3, NSA())  # blocks of 32 each 16 keys, of 64 each 64
    assert counts[:, 0].tolist() == [2, 2, 2, 1] + [0] * 7
    assert counts[:, 1].tolist() == [0] * 3 + [1, 2, 2, 2, 1] + [0] * 3


def test_all_blocks_selected_is_full_attention():
    q, k, v = branches()
    selected = views(NSA(compress=4, stride=2, block=8, selected=8))(q, k, v, None)[1]
    k_s, v_s = (x[:, G : 2 * G].repeat_interleave(2, dim=1) for x in (k, v))
    full = torch.nn.functional.scaled_dot_product_attention(q, k_s, v_s, is_causal=True, scale=1.0)
    torch.testing.assert_close(selected, full, rtol=1e-12, atol=1e-14)


def test_padding_anywhere_moves_no_block():
    q, k, v = branches()
    keep = torch.ones(1, N, dtype=torch.bool)
    keep[:, :3] = keep[:, 20:29] = keep[:, 55:] = False
    y = views()(q, k, v, keep)[:, :, :, keep[0]]
    alone = views()(*(x[:, :, keep[0]] for x in (q, k, v)), None)
    torch.testing.assert_close(y, alone, rtol=1e-12, atol=1e-14)


def test_queries_are_taken_some_at_a_time(monkeypatch):
    whole = views()(*branches(), None)
    monkeypatch.setattr(_routing, "QUERIES", 7)
    torch.testing.assert_close(views()(*branches(), None), whole, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("padded", [0, 3])
def test_a_step_computes_only_the_summaries_that_are_new(padded):
    q, k, v = branches()
    keep = torch.arange(N)[None] >= padded
    state = SMALL.build(LayerShape()).init_state(1, N)
    whole = views()(q, k, v, keep if padded else None)
    for t in range(1, N + 1):
        seen = keep[:, :t] if padded else None
        y = views()(q[:, :, t - 1 : t], k[:, :, :t], v[:, :, :t], seen, state)
        torch.testing.assert_close(y, whole[:, :, :, t - 1 : t], rtol=1e-12, atol=1e-14)
    assert (state.summaries is None) == bool(padded)


def test_the_cache_grows_as_the_formula_says():
    shape = LayerShape()
    layer, state = SMALL.build(shape), SMALL.build(shape).init_state(1, 64)
    layer(torch.randn(1, 62, 64), pos=torch.arange(62)[None], encoding=POSITIONLESS, state=state)
    before = state.nbytes
    layer(torch.randn(1, 2, 64), pos=torch.arange(62, 64)[None], encoding=POSITIONLESS, state=state)
    assert state.nbytes - before == 2 * SMALL.cache_bytes_per_token(shape)


def test_closed_gates_close_the_layer():
    layer = NSA().build(LayerShape())
    layer.gate_proj.bias.data.fill_(-1e9)
    y = layer(torch.randn(1, 9, 64), pos=torch.arange(9)[None], encoding=POSITIONLESS)
    assert not y.any()


def test_the_selected_branch_is_flas():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fla says that it finds no GPU
        naive = pytest.importorskip("fla.ops.nsa.naive")
    q, k, v = (x.float() for x in branches())
    module = views().float()
    selected = module(q, k, v, None)[1]
    chosen = torch.full((1, N, G, 4), -1)
    k_c = module.compress_k(k[:, :G])[0].detach()
    for g, i in torch.cartesian_prod(torch.arange(G), torch.arange(N)).tolist():
        whole = max(0, (i + 1 - 4) // 2 + 1)
        p = (q[0, 2 * g : 2 * g + 2, i] @ k_c[g, :whole].mT).softmax(-1)
        read = sorted(blocks_read(p, i))
        chosen[0, i, g, : len(read)] = torch.tensor(read)
    inputs = (x.transpose(1, 2) for x in (q, k[:, G : 2 * G], v[:, G : 2 * G]))
    oracle = naive.naive_nsa_selection(*inputs, chosen, block_size=8, scale=1.0)
    torch.testing.assert_close(selected, oracle.transpose(1, 2), rtol=1e-4, atol=1e-5)


def test_a_query_reads_as_many_keys_as_the_formula_counts():
    assert [SMALL._selected(n) for n in (1, 8, 9, 32, 33, 64)] == [1, 8, 9, 32, 25, 32]
    assert [SMALL._compressed(n) for n in (1, 3, 4, 5, 6, 64)] == [0, 0, 1, 1, 2, 31]


def test_flops_grow_with_the_length_once_blocks_and_window_are_full():
    flops = [NSA().flops(Work(n_q=n, n_k=n)) for n in (16_384, 32_768)]
    assert 2 < flops[1] / flops[0] < 2.5  # the compressed branch alone is quadratic


def test_refusals_name_the_value():
    with pytest.raises(ValueError, match="stride 3"):
        NSA(stride=3)
    with pytest.raises(ValueError, match="selected must be at least 3, got 2"):
        NSA(selected=2)
    layer = NSA().build(LayerShape())
    with pytest.raises(ValueError, match="causal"):
        layer(
            torch.zeros(1, 3, 64),
            pos=torch.arange(3)[None],
            encoding=POSITIONLESS,
            causal=False,
        )
