"""Randomized positions: what is drawn, when, and for whom."""

import pytest
import torch

from impls.positions.interface import Frame, LayerShape
from impls.positions.randomized import Randomized
from impls.positions.rope import RoPE
from impls.positions.sinusoidal import Sinusoidal

SHAPE = LayerShape(d_model=16, d_head=8, max_len=32)
X, POS = torch.zeros(1, 20, 16), torch.arange(20)[None]


def passes(encoding, n):
    """Positions drawn in n training passes."""
    found = []
    for _ in range(n):
        encoding.embed(X, POS)
        found.append(encoding.drawn(POS)[0])
    return torch.stack(found)


def test_every_training_pass_draws_sorted_positions_of_the_whole_range():
    drawn = passes(Randomized(stretch=16).build(SHAPE).train(), 200)
    assert (drawn.diff(dim=1) > 0).all()
    assert drawn.min() >= 0
    assert drawn.max() < 16 * 32
    assert len(drawn.unique(dim=0)) == 200
    assert drawn.unique().numel() > 0.99 * 16 * 32  # longer texts stand where this was trained


def test_queries_and_keys_of_a_pass_stand_at_the_same_draw():
    encoding = Randomized().build(SHAPE).train()
    encoding.embed(X, POS)
    q = torch.randn(1, 4, 20, 8)
    assert torch.equal(encoding.queries(q, Frame(POS, POS)), encoding.keys(q, Frame(POS, POS)))


def test_draws_are_repeated_by_seed_and_resumed_with_the_weights():
    first = passes(Randomized(draw_seed=1).build(SHAPE).train(), 4)
    half = Randomized(draw_seed=1).build(SHAPE).train()
    passes(half, 2)
    resumed = Randomized(draw_seed=1).build(SHAPE).train()
    resumed.load_state_dict(half.state_dict())
    assert torch.equal(passes(resumed, 2), first[2:])
    assert not torch.equal(passes(Randomized(draw_seed=2).build(SHAPE).train(), 4), first)


def test_evaluation_stands_at_one_draw_after_any_training():
    encoding = Randomized().build(SHAPE)
    before = encoding.eval().drawn(POS)
    passes(encoding.train(), 3)
    assert torch.equal(encoding.eval().drawn(POS), before)
    assert encoding.max_len == 8 * 32


def test_a_range_that_is_not_stretched_leaves_rope_and_sinusoids():
    torch.manual_seed(0)
    q, x = torch.randn(1, 4, 20, 8), torch.randn(1, 20, 16)
    alone = Randomized(stretch=1, reads=1).build(SHAPE).eval()
    frame = Frame(POS, POS)
    assert torch.equal(alone.queries(q, frame), RoPE().build(SHAPE).queries(q, frame))
    alone = Randomized(encoding="sinusoidal", stretch=1, reads=1).build(SHAPE).eval()
    assert torch.equal(alone.embed(x, POS), Sinusoidal().build(SHAPE).embed(x, POS))


def test_more_tokens_than_positions_are_refused():
    encoding = Randomized(stretch=1, reads=1).build(SHAPE).train()
    with pytest.raises(ValueError, match="33 of 32 positions: raise stretch"):
        encoding.embed(torch.zeros(1, 33, 16), torch.arange(33)[None])


@pytest.mark.parametrize("options", [{"reads": 0}, {"reads": 17}, {"base": 1.0}, {"draw_seed": -1}])
def test_what_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match="got"):
        Randomized(**options)


@pytest.mark.parametrize("encoding", ["rope", "sinusoidal"])
def test_an_odd_width_is_refused(encoding):
    with pytest.raises(ValueError, match="pairs"):
        Randomized(encoding=encoding).build(LayerShape(d_model=15, d_head=5))
