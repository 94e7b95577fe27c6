"""Decoders and Hugging Face Llama folders, both ways."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness import catalogue
from impls.models import llama
from impls.models.checkpoint import CheckpointError
from impls.models.decoder import Decoder, DecoderShape

transformers = pytest.importorskip("transformers")

SHAPES = {
    "tied": DecoderShape(d_model=32, n_layers=2, n_heads=4),
    "untied": DecoderShape(d_model=32, n_layers=2, n_heads=4, tied=False, vocab_size=300),
    "grouped": DecoderShape(d_model=32, n_layers=2, n_heads=4, n_kv_heads=2),
    "wide-heads": DecoderShape(d_model=32, n_layers=2, n_heads=4, n_kv_heads=1, d_head=16, d_ff=48),
}
RoPE = catalogue.load("positions/rope")


def random_ids(vocab_size=256):
    return torch.randint(vocab_size, (2, 19), generator=torch.Generator().manual_seed(1))


def scattered(model):
    """The model with weights that make every part matter."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.2)
    return model.eval()


def decoder(shape=SHAPES["grouped"], base=10_000.0):
    return scattered(Decoder(shape, encoding=RoPE(base=base)))


def foreign(tmp_path, **changes):
    """A Llama of transformers' own, and where it was saved."""
    config = transformers.LlamaConfig(
        vocab_size=90,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    )
    model = scattered(transformers.LlamaForCausalLM(config))
    model.save_pretrained(tmp_path, **changes)
    return model


def edit(folder, **changes):
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "absent"}))


def agree(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@torch.no_grad()
def test_an_exported_decoder_is_the_same_model_in_transformers(tmp_path, shape):
    model = decoder(shape, base=500.0)
    llama.save(model, tmp_path)
    exported, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    ids = random_ids(shape.vocab_size)
    agree(model(ids), exported(ids).logits)
    again = llama.load(tmp_path)
    assert again.shape == replace(
        shape, n_kv_heads=shape.layer.n_kv_heads, d_head=shape.layer.d_head, d_ff=shape.hidden
    )
    assert torch.equal(again(ids), model(ids))


@torch.no_grad()
def test_an_exported_decoder_generates_as_it_does_here(tmp_path):
    model = decoder()
    llama.save(model, tmp_path)
    exported = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = random_ids()[:1]
    out = exported.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
    state, mine, new = model.init_state(1, 40), ids, ids
    for _ in range(8):
        new = model(new, state=state)[:, -1:].argmax(-1)
        mine = torch.cat((mine, new), dim=1)
    assert torch.equal(out, mine)


@torch.no_grad()
def test_a_llama_of_transformers_is_the_same_model_here(tmp_path):
    theirs, ids = foreign(tmp_path), random_ids(90)
    agree(llama.load(tmp_path)(ids), theirs(ids).logits)


@torch.no_grad()
def test_shards_are_read(tmp_path):
    theirs, ids = foreign(tmp_path, max_shard_size="10KB"), random_ids(90)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    agree(llama.load(tmp_path)(ids), theirs(ids).logits)


@torch.no_grad()
def test_old_configs_name_the_base_of_the_rotation_at_the_top(tmp_path):
    theirs, ids = foreign(tmp_path), random_ids(90)
    edit(tmp_path, rope_parameters="absent", rope_theta=500.0, rope_scaling=None)
    agree(llama.load(tmp_path)(ids), theirs(ids).logits)


@torch.no_grad()
def test_bfloat16_weights_are_read_in_the_dtype_asked_for(tmp_path):
    foreign(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({n: t.bfloat16() for n, t in load_file(path).items()}, path)
    assert llama.load(tmp_path).embedding.weight.dtype == torch.float32
    model = llama.load(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "impls.context"),
        ({"rope_parameters": "absent", "rope_scaling": {"type": "linear"}}, "'linear'"),
        ({"attention_bias": True}, "attention_bias = True"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"model_type": "mistral", "sliding_window": 8}, "sliding_window = 8"),
        ({"model_type": "gpt2"}, "'gpt2', not llama or mistral"),
        ({"num_hidden_layers": 3}, r"lacks .*blocks\.2"),
        ({"num_hidden_layers": 1}, r"unknown .*model\.layers\.1"),
        ({"intermediate_size": 41}, r"shape \(40, 32\), the model's is \(41, 32\)"),
    ],
)
def test_what_is_no_plain_llama_is_refused(tmp_path, changes, message):
    foreign(tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message):
        llama.load(tmp_path)


def test_a_missing_shard_and_a_cut_one_are_named(tmp_path):
    foreign(tmp_path, max_shard_size="10KB")
    shard = min(tmp_path.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=f"{shard.name} is cut short"):
        llama.load(tmp_path)
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"there is no .*{shard.name}"):
        llama.load(tmp_path)


def test_an_index_cannot_reach_outside_its_folder(tmp_path):
    foreign(tmp_path, max_shard_size="10KB")
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"lm_head.weight": "../outside.safetensors"}}))
    with pytest.raises(CheckpointError, match="outside the folder"):
        llama.load(tmp_path)


@pytest.mark.parametrize(
    ("recipes", "message"),
    [
        ({}, "positions are positions/rope, the model's are None"),
        ({"encoding": RoPE(layout="interleaved")}, "half layout"),
        ({"encoding": RoPE(partial=0.5)}, "whole heads"),
    ],
)
def test_what_llama_cannot_say_is_not_exported(tmp_path, recipes, message):
    with pytest.raises(ValueError, match=message):
        llama.save(Decoder(SHAPES["tied"], **recipes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_llama_wants_the_width_to_be_a_multiple_of_the_heads(tmp_path):
    shape = DecoderShape(d_model=30, n_layers=1, n_heads=4, d_head=8)
    with pytest.raises(ValueError, match="multiple of n_heads 4"):
        llama.save(Decoder(shape, encoding=RoPE()), tmp_path)
