"""What every context extension satisfies, over all techniques of the family.

A decoder in float64 with fewer key/value heads than heads and weights wide enough for attention to
be sharp, so that positions matter; trained length L, read up to 3 L. The same weights as a Llama of
transformers, in float32, must answer as the decoder does.
"""

from dataclasses import fields

import pytest
import torch

from harness import catalogue
from impls.context.interface import DecodeRule, ModelRule
from impls.models import llama
from impls.models.decoder import Decoder, DecoderShape

TECHNIQUES = tuple(name for name in catalogue.techniques() if name.startswith("context/"))
RULES = {
    kind: tuple(name for name in TECHNIQUES if issubclass(catalogue.load(name), kind))
    for kind in (ModelRule, DecodeRule)
}
L, T = 16, 48
SHAPE = DecoderShape(
    vocab_size=32, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, d_head=8, max_len=L
)
EXACT = {"atol": 1e-10, "rtol": 0}  # float64: 1e6 roundings of 1e-16
HF = {"atol": 1e-4, "rtol": 0}  # float32: logits of size 1 to 10, sharp attention in two layers

every_model_rule = pytest.mark.parametrize("name", RULES[ModelRule])
every_decode_rule = pytest.mark.parametrize("name", RULES[DecodeRule])


def such(claim):
    """Over the model rules of which a claim holds."""
    found = [name for name in RULES[ModelRule] if claim(catalogue.load(name))]
    return pytest.mark.parametrize("name", found)


every_rope_rule = such(lambda rule: rule.trained_with == "positions/rope")
every_rule_unchanged_within = such(lambda rule: rule.unchanged_within)
every_exact_rule = such(lambda rule: rule.exact_decoding)
every_rule_with_factor = such(lambda rule: "factor" in {field.name for field in fields(rule)})


def decoder(trained_with="positions/rope"):
    torch.manual_seed(0)
    model = Decoder(SHAPE, encoding=catalogue.load(trained_with)())
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.3)
    return model.double().eval()


def rule_and_model(name):
    technique = catalogue.load(name)
    return technique(), decoder(technique.trained_with)


def ids(t=T, batch=2):
    return torch.randint(32, (batch, t), generator=torch.Generator().manual_seed(1))


def everything(model):
    """Each module with all it holds: attributes, hooks, parameters, submodules, by identity."""
    held = []
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            inside = tuple((k, id(v)) for k, v in value.items()) if isinstance(value, dict) else ()
            held.append((name, id(module), key, id(value), inside))
    return held, {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(before, after):
    return (
        before[0] == after[0]
        and list(before[1]) == list(after[1])
        and all(torch.equal(before[1][name], after[1][name]) for name in before[1])
    )


def by_cache(model, tokens, chunk=1):
    state = model.init_state(*tokens.shape)
    return torch.cat([model(piece, state=state) for piece in tokens.split(chunk, dim=1)], dim=1)


@torch.no_grad()
@every_model_rule
def test_leaving_the_block_restores_everything(name):
    rule, model = rule_and_model(name)
    before, logits = everything(model), model(ids())
    with rule.applied(model, target_len=T) as extended:
        extended(ids())
        by_cache(extended, ids())
    assert same(before, everything(model))
    assert torch.equal(model(ids()), logits)


@every_model_rule
def test_an_exception_restores_everything_too(name):
    rule, model = rule_and_model(name)
    before = everything(model)
    with pytest.raises(KeyError), rule.applied(model, target_len=T):
        raise KeyError
    assert same(before, everything(model))


@torch.no_grad()
@every_model_rule
def test_blocks_of_two_models_do_not_disturb_each_other(name):
    rule, model = rule_and_model(name)
    other = decoder(rule.trained_with)
    with rule.applied(model, target_len=T):
        alone = model(ids())
        with rule.applied(other, target_len=2 * T):
            assert torch.equal(model(ids()), alone)
        assert torch.equal(model(ids()), alone)


@every_model_rule
def test_the_state_dict_is_the_same_inside(name):
    rule, model = rule_and_model(name)
    _, outside = everything(model)
    with rule.applied(model, target_len=T):
        inside = model.state_dict()
    assert list(inside) == list(outside)
    assert all(torch.equal(inside[key], outside[key]) for key in outside)


@torch.no_grad()
@every_rule_unchanged_within
def test_within_the_trained_length_not_one_bit_changes(name):
    rule, model = rule_and_model(name)
    for t in (1, L // 2, L):
        logits = model(ids(t)), by_cache(model, ids(t))
        with rule.applied(model, target_len=T):
            found = model(ids(t)), by_cache(model, ids(t))
        assert all(torch.equal(a, b) for a, b in zip(logits, found, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 5])
@every_model_rule
def test_one_pass_equals_decoding_with_a_cache_where_it_says_so(name, chunk):
    rule, model = rule_and_model(name)
    with rule.applied(model, target_len=T):
        gap = (by_cache(model, ids(), chunk) - model(ids())).abs().max()
    assert gap <= EXACT["atol"] if rule.exact_decoding else gap > 1  # of logits of size 1 to 10


@torch.no_grad()
@every_model_rule
def test_no_logit_depends_on_a_later_token(name):
    rule, model = rule_and_model(name)
    changed = ids().clone()
    changed[:, 30:] = (changed[:, 30:] + 1) % 32
    with rule.applied(model, target_len=T):
        assert torch.equal(model(changed)[:, :30], model(ids())[:, :30])


@torch.no_grad()
@every_exact_rule  # the others depend on the length of the longest row
def test_padding_on_the_left_changes_nothing(name):
    rule, model = rule_and_model(name)
    pad = 7
    pos = torch.stack((torch.arange(T), (torch.arange(T) - pad).clamp(min=0)))
    keep = torch.ones(2, T, dtype=torch.bool)
    keep[1, :pad] = False
    with rule.applied(model, target_len=T):
        padded = model(ids(), pos=pos, keep=keep)
        alone = model(ids()[1:, pad:])
    assert padded.isfinite().all()
    torch.testing.assert_close(padded[1:, pad:], alone, **EXACT)


@torch.no_grad()
@every_rope_rule
def test_a_llama_of_transformers_answers_as_the_decoder(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    rule, model = rule_and_model(name)
    llama.save(model.float(), tmp_path)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    before, config = everything(theirs), theirs.config
    with rule.applied(model, target_len=T), rule.applied(theirs, target_len=T):
        found = theirs(ids(), use_cache=False).logits
        torch.testing.assert_close(found, model(ids()), **HF)
    assert same(before, everything(theirs))
    assert theirs.config is config is theirs.model.config


@torch.no_grad()
@every_rope_rule
def test_a_llama_of_transformers_decodes_with_its_own_cache(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    rule, model = rule_and_model(name)
    llama.save(model.float(), tmp_path)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    cache = transformers.DynamicCache(config=theirs.config)
    with rule.applied(theirs, target_len=T):
        steps = [theirs(token, past_key_values=cache).logits for token in ids().split(1, dim=1)]
        whole = theirs(ids(), use_cache=False).logits
    gap = (torch.cat(steps, dim=1) - whole).abs().max()
    assert gap <= HF["atol"] if rule.exact_decoding else gap > 1


@such(lambda rule: rule.kind != "trained" and rule.__name__ != "LogNScaling")  # over any encoding
def test_a_model_without_a_rotation_is_refused(name):
    rule, model = catalogue.load(name)(), decoder("positions/nope")
    with pytest.raises(ValueError, match=r"positions/rope"), rule.applied(model, target_len=T):
        pass


@every_model_rule
def test_what_is_no_model_it_knows_is_refused(name):
    rule = catalogue.load(name)()
    with (
        pytest.raises(ValueError, match="Linear"),
        rule.applied(torch.nn.Linear(2, 2), target_len=T),
    ):
        pass


@every_rope_rule
def test_fewer_tokens_than_trained_on_are_refused(name):
    rule, model = rule_and_model(name)
    with pytest.raises(ValueError, match=r"16 and 8"), rule.applied(model, target_len=8):
        pass


@every_rule_with_factor
def test_a_factor_that_shortens_is_refused(name):
    technique = catalogue.load(name)
    with pytest.raises(ValueError, match=r"at least 1 .* got 0\.5"):
        technique(factor=0.5)


@torch.no_grad()
@every_decode_rule
def test_joint_predictions_are_distributions_and_the_model_stays(name):
    rule, model = catalogue.load(name)(), decoder()
    before = everything(model)
    contexts = [ids(5, 1)[0], ids(9, 1)[0], ids(0, 1)[0]]
    logp = rule.log_probabilities(model, contexts, ids(3, 1)[0], ids(6, 1)[0])
    assert logp.shape == (6, 32)
    torch.testing.assert_close(logp.logsumexp(-1), torch.zeros(6), atol=1e-5, rtol=0)
    assert rule.generate(model, contexts, ids(3, 1)[0], 4).shape == (4,)
    assert same(before, everything(model))


@torch.no_grad()
@every_decode_rule
def test_a_llama_of_transformers_joins_as_the_decoder(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    rule, model = catalogue.load(name)(), decoder().float()
    llama.save(model, tmp_path)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    arguments = [ids(5, 1)[0], ids(9, 1)[0]], ids(3, 1)[0], ids(6, 1)[0]
    ours = rule.log_probabilities(model, *arguments)
    torch.testing.assert_close(rule.log_probabilities(theirs, *arguments), ours, **HF)


@every_decode_rule
def test_nothing_to_read_or_to_predict_is_refused(name):
    rule, model, some, none = catalogue.load(name)(), decoder(), ids(4, 1)[0], ids(0, 1)[0]
    for arguments, message in (
        (([], some, some), "at least one context"),
        (([some], none, some), "prompt must have at least one"),
        (([some], some, none), "continuation must have at least one"),
    ):
        with pytest.raises(ValueError, match=message):
            rule.log_probabilities(model, *arguments)
