"""FIRE: its argument, a loop over pairs, and the biases that it can become."""

import math

import pytest
import torch

from impls.positions._buckets import bucket
from impls.positions.fire import FIRE
from impls.positions.interface import Frame, LayerShape

SHAPE = LayerShape(n_heads=4, n_kv_heads=4, n_layers=3, max_len=64)


def test_the_argument_is_a_share_at_any_length():
    layer = FIRE().build(SHAPE).at(0)
    pos = torch.tensor([0, 1, 15, 16, 17, 1_000, 100_000])
    x = layer.argument(pos[:, None], pos, torch.float64)
    assert x.min() == 0
    assert x.max() <= 1
    torch.testing.assert_close(x[4:, 0], torch.ones(3).double())  # beyond L: all that there is


def test_the_bias_is_that_of_a_loop_over_pairs():
    torch.manual_seed(0)
    layer = FIRE().build(SHAPE).at(1).double()
    pos = torch.tensor([[0, 3, 15, 16, 40, 300]])
    q = torch.zeros(1, 4, 6, 8, dtype=torch.float64)
    found = layer.score_bias(q, q, Frame(pos, pos))[0]
    network = torch.nn.Sequential(layer.first, torch.nn.ReLU(), layer.second)
    c = layer.c.item()
    for n, i in enumerate(pos[0].tolist()):
        for m, j in enumerate(pos[0, : n + 1].tolist()):
            share = math.log(c * (i - j) + 1) / math.log(c * max(16, i) + 1)
            expected = network(torch.tensor([share], dtype=torch.float64))
            torch.testing.assert_close(found[:, n, m], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "target",
    [
        lambda n: -0.25 * n,  # ALiBi
        lambda n: -torch.log1p(0.5 * n),  # KERPLE
        lambda n: -0.25 * bucket(n.long(), bidirectional=False),  # T5
    ],
    ids=["alibi", "kerple", "t5"],
)
def test_it_can_become_other_biases(target):
    torch.manual_seed(0)
    layer = FIRE(hidden=64).build(LayerShape(n_heads=1, n_kv_heads=1, max_len=256)).at(0)
    pos = torch.arange(64)[None]
    frame = Frame(pos, pos)
    q = torch.zeros(1, 1, 64, 8)
    seen = frame.visible()
    wanted = target(frame.distance[:, None].float())[seen]
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    for step in range(300):
        loss = (layer.score_bias(q, q, frame)[seen] - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 300)
        optimizer.step()
    assert loss < 0.02 * wanted.var()


@pytest.mark.parametrize(("shared", "networks"), [(False, 3), (True, 1)])
def test_layers_share_a_network_if_asked(shared, networks):
    encoding = FIRE(shared=shared).build(SHAPE)
    size = 32 + 32 + 32 * 4 + 4 + 2
    assert sum(p.numel() for p in encoding.parameters()) == networks * size
    assert (encoding.at(0) is encoding.at(2)) == shared


@pytest.mark.parametrize("options", [{"hidden": 0}, {"c": 0.0}, {"threshold": 0.0}])
def test_what_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match="got"):
        FIRE(**options)
