"""Calibration: streamed sums are those of all tokens at once, shared where inputs are, unpadded."""

import pytest
import torch
from torch import nn

from impls.compression._calibration import Calibration, LayerStatistics
from impls.compression._inputs import ChannelScale
from impls.models.decoder import Decoder, DecoderShape
from impls.models.encoder import Encoder, EncoderShape

NEEDS = frozenset({"hessian", "squares", "absmax", "absmean", "range"})
QUERY, KEY = "blocks.0.attention.q_proj", "blocks.0.attention.k_proj"
UP, DOWN = "blocks.1.mlp.up_proj", "blocks.1.mlp.down_proj"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Decoder(DecoderShape(vocab_size=32, d_model=16, n_layers=2, n_heads=2)).double().eval()


def ids(batch=4, t=12):
    return torch.randint(32, (batch, t), generator=torch.Generator().manual_seed(0))


def read_by(model, layer, tokens):
    """What a layer reads, (N, C)."""
    read = []
    hook = model.get_submodule(layer).register_forward_pre_hook(lambda _, x: read.append(x[0]))
    with torch.no_grad():
        model(tokens)
    hook.remove()
    return read[0].flatten(0, 1)


def assert_close(one, other):
    assert one.n_tokens == other.n_tokens
    for name in ("hessian", "squares", "absmax", "absmean"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-6, atol=1e-12)
    assert (one.range.low, one.range.high) == pytest.approx((other.range.low, other.range.high))


def test_sums_are_those_of_the_definitions(model):
    found = Calibration([ids()]).collect(model, [DOWN], NEEDS)[DOWN]
    x = read_by(model, DOWN, ids())
    assert found.n_tokens == 48
    exact = {"rtol": 1e-13, "atol": 1e-18}  # float64: sums of 48 products
    torch.testing.assert_close(found.hessian, 2 * x.T @ x, **exact)
    torch.testing.assert_close(found.squares, x.square().sum(0), **exact)
    assert torch.equal(found.absmax, x.abs().amax(0).float())
    torch.testing.assert_close(found.absmean, x.abs().mean(0).float(), rtol=2**-23, atol=0)
    assert (found.range.low, found.range.high) == (float(x.min()), float(x.max()))


def test_batches_in_turn_are_all_at_once(model):
    at_once = Calibration([ids()]).collect(model, [QUERY, DOWN], NEEDS)
    in_turn = Calibration(ids().split(1)).collect(model, [QUERY, DOWN], NEEDS)
    for layer, statistics in at_once.items():
        assert_close(in_turn[layer], statistics)


def test_layers_that_read_the_same_share_sums_and_others_do_not(model):
    found = Calibration(ids().split(2)).collect(model, [QUERY, KEY, UP, DOWN], NEEDS)
    assert found[QUERY] is found[KEY]
    assert found[QUERY].n_tokens == 48  # once for each token, not for each layer
    assert len({id(statistics) for statistics in found.values()}) == 3


def test_only_what_is_asked_for_is_kept(model):
    found = Calibration([ids()]).collect(model, [DOWN], frozenset({"absmax"}))[DOWN]
    assert found.absmax is not None
    assert (found.hessian, found.squares, found.abssum, found.range) == (None,) * 4


def test_padding_is_left_out_of_every_sum(model):
    keep = torch.ones(4, 12, dtype=torch.bool)
    keep[1, 7:], keep[2, 3:] = False, False
    padded = Calibration([{"ids": ids(), "keep": keep}]).collect(model, [QUERY, DOWN], NEEDS)
    rows = [row[None, : int(mask.sum())] for row, mask in zip(ids(), keep, strict=True)]
    alone = Calibration(rows).collect(model, [QUERY, DOWN], NEEDS)
    for layer, statistics in alone.items():
        assert_close(padded[layer], statistics)


def test_a_batch_of_padding_alone_adds_nothing(model):
    nothing = {"ids": ids(), "keep": torch.zeros(4, 12, dtype=torch.bool)}
    found = Calibration([ids(), nothing]).collect(model, [DOWN], NEEDS)[DOWN]
    assert_close(found, Calibration([ids()]).collect(model, [DOWN], NEEDS)[DOWN])


def test_an_encoder_without_a_head_is_read_too():
    shape = EncoderShape(vocab_size=32, d_model=16, n_layers=1, n_heads=2, mlm_head=False)
    found = Calibration([ids()]).collect(Encoder(shape).eval(), ["blocks.0.up_proj"], NEEDS)
    assert found["blocks.0.up_proj"].n_tokens == 48


def test_sums_are_of_what_a_map_makes_and_the_layer_reads_that(model):
    scale = torch.linspace(0.5, 2, 16)
    plain = Calibration([ids()]).collect(model, [QUERY, DOWN], NEEDS)
    maps = {QUERY: ChannelScale(scale)}
    mapped = Calibration([ids()]).collect(model, [QUERY, KEY, DOWN], NEEDS, maps)
    torch.testing.assert_close(mapped[QUERY].absmax, plain[QUERY].absmax / scale)
    assert torch.equal(mapped[KEY].absmax, plain[QUERY].absmax)
    assert not torch.equal(mapped[DOWN].absmax, plain[DOWN].absmax)  # its query was another


def test_inputs_are_given_batch_by_batch(model):
    batches = ids().split(2)
    for found, batch in zip(Calibration(batches).inputs(model, DOWN), batches, strict=True):
        torch.testing.assert_close(found, read_by(model, DOWN, batch))


def test_no_batch_is_refused():
    with pytest.raises(ValueError, match="at least one batch of token ids, got none"):
        Calibration([])


def test_a_layer_that_is_never_reached_is_refused(model):
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

        def forward(self, x):
            return self.blocks[0](x)

    with pytest.raises(ValueError, match=r"never reached blocks\.1"):
        Calibration([torch.ones(2, 4)]).collect(Half(), ["blocks.0", "blocks.1"], NEEDS)


def test_numbers_that_are_not_finite_are_refused_and_no_hook_is_left(model):
    broken = Decoder(DecoderShape(vocab_size=32, d_model=16, n_layers=1, n_heads=2)).eval()
    with torch.no_grad():
        broken.embedding.weight[5] = torch.nan
    with pytest.raises(ValueError, match=r"during calibration has .* not finite"):
        Calibration([torch.full((1, 3), 5)]).collect(broken, [QUERY], NEEDS)
    assert not any(module._forward_pre_hooks for module in broken.modules())
    assert LayerStatistics().absmean is None
