"""Injected outliers: the same function, with channels that are larger by just the factor."""

import pytest
import torch

from impls.compression.interface import Calibration, blocks_of, inject_outliers, linears_of
from impls.models.decoder import Decoder, DecoderShape
from impls.models.encoder import Encoder, EncoderShape

SHAPE = DecoderShape(vocab_size=32, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2)


def decoder():
    torch.manual_seed(0)
    model = Decoder(SHAPE)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.3)
    return model.double().eval()


def llama():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        use_cache=False,
    )
    return transformers.LlamaForCausalLM(config).double().eval()


def ids():
    return torch.randint(32, (3, 20), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model):
    found = model(ids())
    return found if isinstance(found, torch.Tensor) else found.logits


@pytest.mark.parametrize("make", [decoder, llama])
@pytest.mark.parametrize("factor", [60.0, 0.01])
def test_the_model_computes_what_it_did(make, factor):
    model = make()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    changed = inject_outliers(model, factor=factor)
    # float64: a few thousand products, each rounded once more by the factor and its inverse.
    torch.testing.assert_close(logits(changed), logits(model), rtol=1e-12, atol=1e-12)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_same_channels_of_all_normed_inputs_are_larger_by_the_factor():
    model = decoder()
    changed = inject_outliers(model, factor=50.0, channels=3, seed=1)
    largest = [
        Calibration([ids()]).collect(m, list(linears_of(m)), frozenset({"absmax"}))
        for m in (model, changed)
    ]
    chosen = None
    for name, before in largest[0].items():
        ratio = largest[1][name].absmax / before.absmax
        if name.endswith(("o_proj", "down_proj")):
            torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=1e-6, atol=0)
            continue
        grown = ratio > 2
        torch.testing.assert_close(ratio, torch.where(grown, 50.0, 1.0), rtol=1e-6, atol=0)
        assert chosen is None or torch.equal(grown, chosen)
        chosen = grown
    assert int(chosen.sum()) == 3


def test_the_seed_chooses_the_channels():
    def chosen(seed):
        changed = inject_outliers(decoder(), factor=10.0, seed=seed)
        ratio = blocks_of(changed)["blocks.0"].mlp_norm.weight / decoder().blocks[0].mlp_norm.weight
        return ratio.detach() > 2

    assert torch.equal(chosen(0), chosen(0))
    assert not torch.equal(chosen(0), chosen(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 0.0}, r"factor must be above 0, got 0\.0"),
        ({"factor": 2.0, "channels": 0}, "channels must be from 1 to 32, got 0"),
        ({"factor": 2.0, "channels": 33}, "channels must be from 1 to 32, got 33"),
    ],
)
def test_numbers_out_of_bounds_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        inject_outliers(decoder(), **options)


def test_a_model_whose_norms_feed_the_residual_stream_is_refused():
    encoder = Encoder(EncoderShape(vocab_size=32, d_model=32, n_layers=1, n_heads=4))
    with pytest.raises(ValueError, match="take a pre-norm model"):
        inject_outliers(encoder, factor=10.0)


def test_a_norm_that_is_not_its_weight_times_its_input_is_refused():
    """Gemma's norms multiply by 1 + weight, so scaling the weight would change the model."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GemmaConfig(
        vocab_size=8, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    with pytest.raises(ValueError, match="no norm that feeds linear layers alone"):
        inject_outliers(transformers.GemmaForCausalLM(config), factor=10.0)
