"""Dynamic NTK: its frequencies, and how far decoding is from one pass."""

import pytest
import torch

from impls.context import DynamicNTK, NTKAware
from impls.context.interface import RopeShape

ROPE = RopeShape(d=32, base=10_000.0, train_len=128)


def frequencies(length, factor=2.0):
    return DynamicNTK(factor=factor).frequencies(ROPE, target_len=256, length=length)[0]


@pytest.mark.parametrize(("length", "ratio"), [(129, 64 / 65), (256, 1 / 3), (512, 1 / 7)])
def test_the_lowest_frequency_falls_with_the_length(length, ratio):
    torch.testing.assert_close(
        frequencies(length)[-1] / ROPE.theta[-1],
        torch.tensor(ratio, dtype=torch.float64),
        rtol=1e-12,
        atol=0,
    )


@pytest.mark.parametrize("length", [100, 129, 256, 512])
def test_frequencies_are_those_of_transformers(hf_frequencies, length):
    theirs, factor = hf_frequencies("dynamic", factor=2.0, length=length)
    assert factor == 1
    # The base, up to 2e5, and an exponent are rounded to float32: ln(2e5) roundings of a power.
    torch.testing.assert_close(frequencies(length), theirs, rtol=13 * 2**-23, atol=0)


def test_with_a_factor_of_one_it_is_ntk_scaling_by_the_length():
    static, _ = NTKAware().frequencies(ROPE, target_len=512, length=512)
    assert torch.equal(frequencies(512, factor=1.0), static)


@torch.no_grad()
def test_decoding_and_one_pass_part_beyond_the_trained_length(decoder, ids):
    model = decoder()
    with DynamicNTK(factor=2.0).applied(model, target_len=48):
        state, whole = model.init_state(2, 48), model(ids())
        decoded = torch.cat([model(x, state=state) for x in ids().split(1, dim=1)], dim=1)
    gap = (decoded - whole).abs().amax((0, 2))
    assert gap[16:].max() > 1  # of logits of size 1 to 10


@torch.no_grad()
def test_one_pass_is_the_one_pass_of_transformers():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = {
        "vocab_size": 32,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 16,
    }
    rope = {"rope_theta": 10_000.0}
    plain = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape)).eval()
    dynamic = {"rope_type": "dynamic", "factor": 2.0, **rope}
    config = transformers.LlamaConfig(**shape, rope_parameters=dynamic)
    theirs = transformers.LlamaForCausalLM(config).eval()
    theirs.load_state_dict(plain.state_dict())
    tokens = torch.arange(48)[None] % 32
    with DynamicNTK(factor=2.0).applied(plain, target_len=48):
        torch.testing.assert_close(plain(tokens).logits, theirs(tokens).logits, atol=1e-5, rtol=0)
