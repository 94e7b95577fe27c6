"""This project's decoders: which attention takes which rule."""

from dataclasses import replace

import pytest
import torch

from impls.attention import LinearAttention
from impls.context import LogNScaling, ReRoPE, WindowAttention, YaRN
from impls.models.decoder import Decoder
from impls.positions import RoPE

T = 48


def with_attention(model, attention):
    return Decoder(replace(model.shape), encoding=RoPE(), attention=attention).double().eval()


@torch.no_grad()
@pytest.mark.parametrize("rule", [YaRN(), LogNScaling()], ids=str)
def test_rules_of_queries_and_keys_go_with_attention_that_has_no_scores(decoder, ids, rule):
    model = with_attention(decoder(), LinearAttention())
    plain = model(ids())
    with rule.applied(model, target_len=T):
        assert not torch.equal(model(ids()), plain)
    assert torch.equal(model(ids()), plain)


@pytest.mark.parametrize("rule", [ReRoPE(logn=True), WindowAttention()], ids=str)
def test_rules_of_scores_are_refused_there_before_anything_is_read(decoder, rule):
    model = with_attention(decoder(), LinearAttention())
    trained = model.encoding
    with (
        pytest.raises(ValueError, match=r"LinearAttention has none to change: .* dense or full"),
        rule.applied(model, target_len=T),
    ):
        pass
    assert model.encoding is trained


@torch.no_grad()
def test_float32_is_as_near_to_float64_as_rounding_allows(decoder, ids):
    model = decoder()
    with ReRoPE(logn=True).applied(model, target_len=T):
        exact = model(ids())
        found = model.float()(ids())
    assert (found - exact).abs().max() <= 1e-4 * exact.abs().max()
