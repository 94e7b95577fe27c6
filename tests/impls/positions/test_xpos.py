"""xPos: the closed form of its scores, RoPE as its limit, and its range."""

import pytest
import torch

from impls.positions._rotary import inverse_frequencies
from impls.positions.interface import Frame, LayerShape
from impls.positions.rope import RoPE
from impls.positions.xpos import XPos

SHAPE = LayerShape(n_heads=2, n_kv_heads=2, d_head=8, max_len=64)


def scores(encoding, q, k, start=0):
    pos = torch.arange(start, start + q.shape[2])[None]
    frame = Frame(pos, pos)
    return encoding.queries(q, frame) @ encoding.keys(k, frame).mT


def test_scores_of_equal_tokens_are_the_closed_form_of_the_distance():
    q = k = torch.ones(1, 2, 50, 8, dtype=torch.float64)
    found = scores(XPos(scale_base=16).build(SHAPE), q, k)[0, 0]
    distance = (torch.arange(50)[:, None] - torch.arange(50)).double()[..., None]
    zeta = (torch.arange(4, dtype=torch.float64) / 4 + 0.4) / 1.4
    waves = 2 * (distance * inverse_frequencies(8, 10_000.0)).cos()
    torch.testing.assert_close(found, (zeta ** (distance / 16) * waves).sum(-1))


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_without_decay_it_is_rope(layout):
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 2, 50, 8, dtype=torch.float64)
    found = scores(XPos(gamma=1e12, layout=layout).build(SHAPE), q, k)
    torch.testing.assert_close(found, scores(RoPE(layout=layout).build(SHAPE), q, k))


def test_scores_at_the_end_of_its_range_are_those_at_the_start():
    encoding = XPos().build(SHAPE)
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 2, 50, 8)
    found = scores(encoding, q, k, start=encoding.max_len - 50)
    assert encoding.max_len > 28_000
    torch.testing.assert_close(found, scores(encoding, q, k), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["scale_base", "gamma"])
def test_what_cannot_be_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be above 0"):
        XPos(**{name: 0.0})
