"""Consistent dynamic NTK: decoding is one pass, in our models and in transformers'."""

import pytest
import torch

from impls.context import ConsistentDynamicNTK, DynamicNTK
from impls.context.interface import RopeShape

L = 64


@pytest.fixture
def llama():
    """A random Llama of transformers with attention made sharp, and tokens for it."""
    transformers = pytest.importorskip("transformers")

    def build(rope_type):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=64,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=L,
            rope_parameters={"rope_type": rope_type, "rope_theta": 10_000.0, "factor": 2.0},
        )
        model = transformers.LlamaForCausalLM(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter *= 8 if parameter.ndim > 1 else 1
        return model

    return build


def decoding_gap(model, length):
    """Largest difference of a last logit between one pass and decoding token by token."""
    tokens = torch.randint(64, (1, length), generator=torch.Generator().manual_seed(0))
    cache = None
    for token in tokens.split(1, dim=1):
        out = model(token, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
    return float((out.logits - model(tokens).logits[:, -1:]).abs().max())


@torch.no_grad()
@pytest.mark.parametrize("length", [32, 96, 128])
def test_transformers_parts_from_itself_and_the_consistent_rule_does_not(llama, length):
    theirs, ours = llama("dynamic"), llama("default")
    with ConsistentDynamicNTK(factor=2.0).applied(ours, target_len=128):
        assert decoding_gap(ours, length) <= 1e-4
    with DynamicNTK(factor=2.0).applied(ours, target_len=128):
        plain_gap = decoding_gap(ours, length)
    if length > L:
        assert decoding_gap(theirs, length) > 1
        assert plain_gap > 1
    else:
        assert plain_gap <= 1e-4


def test_each_query_has_the_frequencies_of_its_own_length(vectors, scores, pairwise, rope):
    rule, (q, k), i = ConsistentDynamicNTK(factor=2.0), vectors(20), torch.arange(20)
    shape = RopeShape(d=8, base=10_000.0, train_len=8)
    own = [rule.frequencies(shape, target_len=16, length=n)[0] for n in range(1, 21)]
    expected = pairwise(q, k, i[:, None] - i, torch.stack(own)[:, None])
    extended = rule.extended(rope, train_len=8, target_len=16)
    found = scores(extended, q, k).tril()  # later keys are hidden in any case
    torch.testing.assert_close(found, expected.tril(), atol=1e-12, rtol=0)


@torch.no_grad()
def test_in_one_layer_the_last_token_is_read_as_by_dynamic_ntk(decoder, ids):
    model = decoder(n_layers=1)
    with DynamicNTK(factor=2.0).applied(model, target_len=32):
        expected = model(ids())[:, -1]
    with ConsistentDynamicNTK(factor=2.0).applied(model, target_len=32):
        torch.testing.assert_close(model(ids())[:, -1], expected, atol=1e-10, rtol=0)
