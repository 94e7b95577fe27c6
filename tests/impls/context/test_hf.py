"""Llama-type models of transformers: other scalings, caches, padding, and what is refused."""

import pytest
import torch

from impls.context import (
    ConsistentDynamicNTK,
    LogNScaling,
    PositionInterpolation,
    ReRoPE,
    WindowAttention,
    YaRN,
)

transformers = pytest.importorskip("transformers")

T = 40
SIZES = {
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
}
KINDS = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "granite": {"attention_multiplier": 0.5},  # a factor of its own for scores
    "phi": {"partial_rotary_factor": 0.5},  # turns half of each head
    "qwen3": {"head_dim": 8},  # normalises queries and keys before they turn
}


def build(kind="llama", **changes):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, **KINDS.get(kind, {}), **changes})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 8 if parameter.ndim > 1 else 1
    return model


def ids(t=T, batch=2):
    return torch.randint(1, 32, (batch, t), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", [ReRoPE(window=T), PositionInterpolation(factor=1.0)], ids=str)
def test_rules_that_change_nothing_change_nothing(kind, rule):
    model = build(kind)
    plain = model(ids()).logits
    with rule.applied(model, target_len=T):
        found = model(ids()).logits
    assert plain.abs().max() < 1e3  # float32: 2e-4 is a relative error of 1e-6 and its growth
    torch.testing.assert_close(found, plain, atol=2e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("rule", [YaRN(), ReRoPE(), ReRoPE(logn=True), WindowAttention()], ids=str)
def test_generation_is_the_same_with_and_without_a_cache(rule):
    model = build()
    options = {"max_new_tokens": 20, "do_sample": False, "min_new_tokens": 20}
    with rule.applied(model, target_len=T):
        cached, whole = (model.generate(ids(20), use_cache=use, **options) for use in (True, False))
    assert torch.equal(cached, whole)


@torch.no_grad()
@pytest.mark.parametrize(
    "rule", [YaRN(), ReRoPE(), WindowAttention(sinks=2), ConsistentDynamicNTK()], ids=str
)
def test_a_static_cache_decodes_as_one_pass(rule):
    model = build()
    cache = transformers.StaticCache(config=model.config, max_cache_len=64)
    with rule.applied(model, target_len=T):
        steps = [model(piece, past_key_values=cache).logits for piece in ids().split(8, dim=1)]
        whole = model(ids(), use_cache=False).logits
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=2e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("rule", [YaRN(), ReRoPE(), WindowAttention(window=5)], ids=str)
def test_padding_on_the_left_changes_nothing(rule):
    model, pad = build(), 9
    mask = torch.ones(2, T, dtype=torch.long)
    mask[1, :pad] = 0
    pos = (mask.cumsum(1) - 1).clamp(min=0)
    with rule.applied(model, target_len=T):
        padded = model(ids(), attention_mask=mask, position_ids=pos).logits
        alone = model(ids()[1:, pad:]).logits
    assert padded.isfinite().all()
    torch.testing.assert_close(padded[1:, pad:], alone, atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_rules_nest_and_are_undone_one_by_one():
    model = build()
    with ReRoPE().applied(model, target_len=T):
        rectified = model(ids()).logits
        with LogNScaling().applied(model, target_len=T):
            nested = model(ids()).logits
        assert torch.equal(model(ids()).logits, rectified)
    with ReRoPE(logn=True).applied(model, target_len=T):
        assert torch.equal(model(ids()).logits, nested)


@torch.no_grad()
def test_a_model_of_the_same_config_is_not_touched():
    model = build()
    twin = transformers.LlamaForCausalLM(model.config).eval()
    plain = twin(ids()).logits
    with ReRoPE().applied(model, target_len=T):
        assert torch.equal(twin(ids()).logits, plain)


def test_bfloat16_angles_are_not_bfloat16():
    model = build().bfloat16()
    with PositionInterpolation(factor=1.0).applied(model, target_len=T):
        x, pos = torch.zeros(1, 1, 32, dtype=torch.bfloat16), torch.tensor([[10_001]])
        cos, _ = model.model.rotary_emb(x, pos)
    assert cos.dtype == torch.bfloat16
    exact = torch.tensor(10_001.0).double().cos()
    assert abs(float(cos[0, 0, 0]) - exact) <= 2**-9  # one rounding of a number below 1


def test_a_rotation_that_is_changed_already_is_refused():
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}
    model = build(rope_parameters=rope)
    with pytest.raises(ValueError, match="changed already"), YaRN().applied(model, target_len=T):
        pass


def test_a_second_frequency_rule_is_refused():
    model = build()
    with (
        YaRN().applied(model, target_len=T),
        pytest.raises(ValueError, match="changed already"),
        YaRN().applied(model, target_len=T),
    ):
        pass


@torch.no_grad()
def test_scores_that_a_model_changes_in_other_ways_are_refused():
    model = build("gemma2", head_dim=8, attn_logit_softcapping=50.0)
    with (
        ReRoPE().applied(model, target_len=T),
        pytest.raises(ValueError, match="Gemma2Attention sets softcap"),
    ):
        model(ids())
