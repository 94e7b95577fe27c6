"""Layer reduction: blocks that do nothing, numbers that must follow, rules, healing, files."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from impls.compression import RTN, LayerReduction
from impls.compression._depth import turns
from impls.compression.interface import (
    Calibration,
    CompressedLinear,
    PackedError,
    blocks_of,
    load,
    model_bytes,
    run,
    save,
)
from impls.models.decoder import Decoder, DecoderShape
from impls.models.encoder import Encoder, EncoderShape
from impls.positions import CoPE

SIZES = {"vocab_size": 32, "d_model": 32, "n_layers": 4, "n_heads": 4, "d_ff": 64}


def shaken(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.1)
    return model.eval()


def decoder(**recipes):
    return shaken(Decoder(DecoderShape(**SIZES), **recipes))


def encoder():
    return shaken(Encoder(EncoderShape(**SIZES)))


def with_idle_block(n, **recipes):
    """A decoder whose block n adds 0 to the residual stream."""
    model = decoder(**recipes)
    with torch.no_grad():
        model.blocks[n].attention.o_proj.weight.zero_()
        model.blocks[n].mlp.down_proj.weight.zero_()
    return model


def ids(seed=1):
    return torch.randint(32, (3, 20), generator=torch.Generator().manual_seed(seed))


def calibration():
    return Calibration([ids(1), ids(2)])


def llama(**changes):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}
    config = transformers.LlamaConfig(
        **sizes, num_attention_heads=4, num_key_value_heads=2, **changes
    )
    return shaken(transformers.LlamaForCausalLM(config))


def bert():
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}
    return shaken(transformers.BertModel(transformers.BertConfig(**sizes, num_attention_heads=4)))


@torch.no_grad()
@pytest.mark.parametrize("encoding", [None, CoPE()], ids=["plain", "own tables"])
@pytest.mark.parametrize("idle", [0, 2, 3])
def test_a_block_that_does_nothing_is_found_and_missed_by_no_bit(idle, encoding):
    """Also where each layer has its own table of positions, which must go with its block."""
    model = with_idle_block(idle, encoding=encoding)
    influence = turns(model, calibration(), 1)
    assert influence[idle] == 0
    assert all(influence[n] > 1e-6 for n in range(4) if n != idle)
    for by in ("influence", "angle"):
        assert LayerReduction(by=by).chosen(model, calibration()) == [idle]
    small = LayerReduction().compressed(model, calibration())
    assert torch.equal(small(ids(5)), model(ids(5)))
    assert len(small.blocks) == small.shape.n_layers == 3


@torch.no_grad()
def test_a_llama_of_transformers_counts_and_numbers_what_is_left():
    model = llama()
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight.zero_()
        model.model.layers[1].mlp.down_proj.weight.zero_()
    small = LayerReduction().compressed(model, calibration())
    assert [layer.self_attn.layer_idx for layer in small.model.layers] == [0, 1, 2]
    assert small.config.num_hidden_layers == 3
    assert model.config.num_hidden_layers == 4
    assert torch.equal(small(ids(5)).logits, model(ids(5)).logits)
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    tokens = small.generate(ids(5), **options)  # with a cache, by number of layer
    assert torch.equal(tokens, small.generate(ids(5), **options, use_cache=False))
    assert torch.equal(tokens, model.generate(ids(5), **options))


@torch.no_grad()
def test_a_bert_of_transformers_and_an_encoder_are_the_remaining_blocks():
    for model in (bert(), encoder()):
        small = LayerReduction(by="listed", listed=(1, 2)).compressed(model)
        left = [block for n, block in enumerate(blocks_of(model).values()) if n in {0, 3}]
        reduced = list(blocks_of(small).values())
        assert len(reduced) == 2
        for one, other in zip(left, reduced, strict=True):
            theirs = other.state_dict()
            assert all(torch.equal(w, theirs[name]) for name, w in one.state_dict().items())
        made = run(small, ids())
        assert (made if isinstance(made, torch.Tensor) else made[0]).isfinite().all()
    assert small.shape.n_layers == 2


@torch.no_grad()
def test_influence_and_angle_are_those_of_the_hidden_states():
    model = decoder()
    tokens = torch.cat([ids(1), ids(2)])
    x, states = model.embedding(tokens), []
    pos = torch.arange(20)[None]
    for n, block in enumerate(model.blocks):
        states.append(x)
        x = block(x, pos=pos, encoding=model.encoding.at(n))
    states.append(x)
    cosine = [nn.functional.cosine_similarity(a, b, dim=-1) for a, b in pairwise(states)]
    wanted = torch.stack([1 - c.mean() for c in cosine]).double()
    torch.testing.assert_close(turns(model, calibration(), 1), wanted, rtol=1e-4, atol=1e-6)
    apart = zip(states[:-2], states[2:], strict=True)
    far = [nn.functional.cosine_similarity(a, b, dim=-1) for a, b in apart]
    angles = torch.stack([c.arccos().mean() / torch.pi for c in far]).double()
    found = turns(model, calibration(), 2, angles=True)
    torch.testing.assert_close(found, angles, rtol=1e-4, atol=1e-6)
    start = int(angles.argmin())
    chosen = LayerReduction(by="angle", share=0.5).chosen(model, calibration())
    assert chosen == [start, start + 1]


def test_padding_has_no_influence():
    model = decoder()
    keep = torch.ones(3, 20, dtype=torch.bool)
    keep[:, 12:] = False
    padded = [{"ids": torch.where(keep, ids(), pad), "keep": keep} for pad in (0, 9)]
    found = [turns(model, Calibration([batch]), 1) for batch in padded]
    assert torch.equal(*found)
    alone = turns(model, Calibration([ids()[:, :12]]), 1)
    torch.testing.assert_close(found[0], alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("by", "share", "gone"),
    [
        ("first", 0.5, [0, 1]),
        ("last", 0.5, [2, 3]),
        ("every", 0.5, [1, 3]),
        ("every", 0.25, [2]),
        ("every", 0.1, [2]),
    ],
)
def test_fixed_rules_need_no_data(by, share, gone):
    assert LayerReduction(by=by, share=share).chosen(decoder(), None) == gone


def test_only_blocks_with_a_chosen_layer_may_go():
    model = decoder()
    assert LayerReduction(by="first").chosen(model, None, "blocks.2.*") == [2]
    with pytest.raises(ValueError, match="2 of 4 blocks shall go and 1 may"):
        LayerReduction(by="first", share=0.5).chosen(model, None, "blocks.2.*")
    rule = LayerReduction(by="angle", share=0.5)
    with pytest.raises(ValueError, match="in a row"):
        rule.chosen(model, calibration(), "blocks.[02].*")


def error(small, model, seed=9):
    with torch.no_grad():
        return float((run(small, ids(seed)) - run(model, ids(seed))).norm())


@pytest.mark.parametrize(("kind", "match"), [("decoder", "logits"), ("encoder", "hidden")])
def test_healing_brings_the_outputs_back(kind, match):
    model = {"decoder": decoder, "encoder": encoder}[kind]()
    rule = LayerReduction(by="listed", listed=(1,), match=match)
    plain = rule.compressed(model)
    healed = replace(rule, steps=30, lr=3e-3).compressed(model, calibration())
    assert error(healed, model, seed=1) < 0.9 * error(plain, model, seed=1)
    assert all(p.grad is None and p.requires_grad for p in healed.parameters())
    assert error(model, {"decoder": decoder, "encoder": encoder}[kind]()) == 0


def test_healing_that_makes_it_worse_is_undone():
    model = decoder()
    rule = LayerReduction(by="last", steps=2, lr=30.0)
    small, plain = rule.compressed(model, calibration()), replace(rule, steps=0).compressed(model)
    theirs = plain.state_dict()
    assert all(torch.equal(w, theirs[name]) for name, w in small.state_dict().items())


def test_logits_are_matched_where_there_are_some():
    for model in (llama(), encoder()):
        LayerReduction(match="logits", steps=1).compressed(model, calibration())
    with pytest.raises(ValueError, match="BertModel gives no logits"):
        LayerReduction(match="logits", steps=1).compressed(bert(), calibration())


@torch.no_grad()
def test_files_load_into_a_model_of_the_reduced_shape(tmp_path):
    small = RTN(group=32).compressed(LayerReduction(share=0.5).compressed(decoder(), calibration()))
    assert sum(isinstance(layer, CompressedLinear) for layer in small.modules()) == 2 * 7
    save(small, tmp_path)
    again = load(Decoder(replace(DecoderShape(**SIZES), n_layers=2)), tmp_path)
    assert torch.equal(again(ids()), small(ids()))
    with pytest.raises(PackedError):
        load(decoder(), tmp_path)


def test_bytes_fall_by_those_of_the_blocks():
    model = decoder()
    of_a_block = model_bytes(model.blocks[0])
    small = LayerReduction(share=0.5).compressed(model, calibration())
    assert model_bytes(model) - model_bytes(small) == 2 * of_a_block


def test_a_trained_model_misses_its_least_influential_block_less_than_its_first():
    """Not more: the order of influences is not that of losses."""
    torch.manual_seed(0)
    model = Decoder(DecoderShape(**SIZES))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(80):
        loss = next_token_loss(model, counting(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    held_out = counting(10_000)
    losses = {}
    for by in ("influence", "first"):
        small = LayerReduction(by=by).compressed(model, Calibration([counting(9_000)]))
        with torch.no_grad():
            losses[by] = float(next_token_loss(small, held_out))
    assert losses["influence"] < losses["first"]


def counting(seed):
    """Texts of numbers that grow in equal steps."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(32, (16, 1), generator=generator)
    step = torch.randint(1, 4, (16, 1), generator=generator)
    return (start + step * torch.arange(16)) % 32


def next_token_loss(model, tokens):
    logits = model(tokens[:, :-1])
    return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"share": 0.0}, "share must be above 0 and below 1, got 0"),
        ({"by": "listed"}, "go together"),
        ({"listed": (1,)}, "go together"),
        ({"lr": 0.0}, "lr must be above 0, got 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        LayerReduction(**options)


def test_blocks_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"among \[0, 1, 2, 3\], got \[7\]"):
        LayerReduction(by="listed", listed=(7,)).compressed(decoder())
    with pytest.raises(ValueError, match="LayerReduction needs calibration"):
        LayerReduction().compressed(decoder())
