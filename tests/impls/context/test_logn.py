"""Log n scaling: the factor of every row of scores."""

import math

import pytest
import torch

from impls.context import LogNScaling
from impls.positions import ALiBi, Learned, NoPE


def test_rows_of_scores_grow_with_the_logarithm_of_their_length(vectors, scores, rope):
    q, k = vectors(20)
    extended = LogNScaling().extended(rope, train_len=8, target_len=20)
    ratio = scores(extended, q, k) / scores(rope, q, k)
    expected = [max(1.0, math.log(n) / math.log(8)) for n in range(1, 21)]
    torch.testing.assert_close(
        ratio,
        torch.tensor(expected, dtype=torch.float64)[:, None].expand_as(ratio),
        rtol=1e-9,
        atol=0,
    )


@torch.no_grad()
@pytest.mark.parametrize("encoding", [NoPE(), ALiBi(), Learned()], ids=str)
def test_it_goes_over_any_encoding_and_leaves_its_parameters_their_names(decoder, ids, encoding):
    model = decoder(encoding)
    plain, names = model(ids(16)), list(model.state_dict())
    with LogNScaling().applied(model, train_len=8, target_len=16):
        scaled = model(ids(16))
        assert list(model.state_dict()) == names
    assert torch.equal(scaled[:, :8], plain[:, :8])
    assert not torch.equal(scaled[:, 8:], plain[:, 8:])
