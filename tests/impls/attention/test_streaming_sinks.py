"""StreamingLLM: its mask, and distances as they are in its cache."""

import pytest
import torch

from impls.attention import FullAttention, StreamingSinks
from impls.models.hooks import LayerShape
from impls.positions import ALiBi, NoPE, RoPE

SHAPE = LayerShape(d_model=32, n_heads=4, n_kv_heads=2, d_head=8)
S, W, T = 3, 8, 40


def run(layer, x, encoding, pos=None, state=None):
    pos = torch.arange(x.shape[1])[None] if pos is None else pos
    return layer(x, pos=pos, encoding=encoding.build(SHAPE), state=state)


def test_sinks_and_window():
    mask = StreamingSinks(sinks=S, window=W).mask(T, T, causal=True, offset=0, n_heads=1)[0, 0]
    for i, row in enumerate(mask.tolist()):
        assert row == [j <= i and (j < S or i - j < W) for j in range(T)]


@pytest.mark.parametrize("encoding", [RoPE(), ALiBi(), NoPE()], ids=["rope", "alibi", "nope"])
def test_equals_full_attention_over_the_cache_with_positions_counted_in_it(encoding):
    torch.manual_seed(0)
    layer = StreamingSinks(sinks=S, window=W).build(SHAPE).double()
    dense = FullAttention().build(SHAPE).double()
    dense.load_state_dict(layer.state_dict())
    x = torch.randn(2, T, 32, dtype=torch.float64)
    y = run(layer, x, encoding)
    for i in range(T):
        cached = sorted({*range(min(S, i + 1)), *range(max(0, i + 1 - W), i + 1)})
        alone = run(dense, x[:, cached], encoding)  # positions 0, 1, ... as the paper has them
        torch.testing.assert_close(y[:, i], alone[:, -1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("encoding", [RoPE(), ALiBi()], ids=["rope", "alibi"])
def test_decoding_equals_one_pass_far_beyond_the_cache(encoding):
    layer = StreamingSinks(sinks=S, window=W).build(SHAPE).double()
    x = torch.randn(1, 100, 32, dtype=torch.float64)
    state = layer.init_state(1, 1)
    outputs = [
        run(layer, piece, encoding, torch.arange(start, start + piece.shape[1])[None], state)
        for piece, start in zip(
            x.split([30, 1, 1, 50, 18], dim=1), (0, 30, 31, 32, 82), strict=True
        )
    ]
    y = run(layer, x, encoding)
    torch.testing.assert_close(torch.cat(outputs, dim=1), y, rtol=0, atol=1e-10)
    assert state.nbytes == 2 * (S + W - 1) * SHAPE.n_kv_heads * SHAPE.d_head * 8


def test_without_sinks_it_is_a_window():
    mask = StreamingSinks(sinks=0, window=W).mask(T, T, causal=True, offset=0, n_heads=1)[0, 0]
    assert torch.equal(mask, torch.ones(T, T).tril().triu(1 - W) > 0)


def test_fewer_sinks_than_none_are_refused():
    with pytest.raises(ValueError, match="sinks must not be negative, got -1"):
        StreamingSinks(sinks=-1)
