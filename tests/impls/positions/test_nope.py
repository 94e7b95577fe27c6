"""NoPE: without a mask, tokens are a set."""

import torch

from impls.models.attention import weighted
from impls.positions.interface import Frame, LayerShape
from impls.positions.nope import NoPE


def test_without_a_mask_permuted_tokens_give_permuted_scores_in_every_bit():
    encoding = NoPE().build(LayerShape())
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 4, 9, 16)
    pos, order = torch.arange(9)[None], torch.randperm(9)
    frame = Frame(pos, pos, causal=False)

    def scores(q, k):
        return (
            encoding.queries(q, frame)[:, :, :, None] * encoding.keys(k, frame)[:, :, None]
        ).sum(-1)

    permuted = scores(q[:, :, order], k[:, :, order])
    assert torch.equal(permuted, scores(q, k)[:, :, order][..., order])
    assert encoding.score_bias(q, k, frame) is None


def test_the_causal_mask_alone_tells_a_position():
    encoding, t = NoPE().build(LayerShape()), 9
    q = k = torch.zeros(1, 4, t, 16)
    v = torch.zeros(1, 4, t, 1)
    v[:, :, 0] = 1  # a token that differs from all others, at the start
    pos = torch.arange(t)[None]
    y = weighted(q, k, v, Frame(pos, pos), None, encoding.scale(16), encoding)
    torch.testing.assert_close(1 / y[0, 0, :, 0], torch.arange(1.0, t + 1))
