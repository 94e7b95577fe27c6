"""The encoder-decoder against T5, and decoding with a state."""

import pytest
import torch

from harness import catalogue
from impls.models.encoder_decoder import EncoderDecoder
from impls.models.shapes import EncoderDecoderShape

SHAPE = EncoderDecoderShape(
    vocab_size=90, d_model=32, n_encoder_layers=2, n_decoder_layers=3, n_heads=4, d_head=6, d_ff=40
)


def scattered(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.2)
    return model.eval()


def texts():
    source = torch.Generator().manual_seed(1)
    return (torch.randint(90, (2, n), generator=source) for n in (19, 11))


def agree(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def encoded(name):
    recipe = catalogue.load(name)() if name and catalogue.known(name) else None
    if name and recipe is None:
        pytest.skip(f"there is no {name} yet")
    return scattered(EncoderDecoder(SHAPE, encoding=recipe))


NAMES = {
    "attention_norm": "layer.0.layer_norm",
    "attention.q_proj": "layer.0.SelfAttention.q",
    "attention.k_proj": "layer.0.SelfAttention.k",
    "attention.v_proj": "layer.0.SelfAttention.v",
    "attention.o_proj": "layer.0.SelfAttention.o",
    "cross_norm": "layer.1.layer_norm",
    "cross.q_proj": "layer.1.EncDecAttention.q",
    "cross.k_proj": "layer.1.EncDecAttention.k",
    "cross.v_proj": "layer.1.EncDecAttention.v",
    "cross.o_proj": "layer.1.EncDecAttention.o",
}


def copy_from_t5(ours, theirs):
    """Set every parameter of ours from T5's of the same role, each of T5's used once."""
    state = dict(theirs.state_dict())
    left = {name for name in state if "embed_tokens" not in name} - {"lm_head.weight"}

    def take(parameter, name):
        parameter.copy_(state[name])
        left.remove(name)

    take(ours.embedding.weight, "shared.weight")
    if ours.head is not None:
        ours.head.weight.copy_(state["lm_head.weight"])
    for stack in ("encoder", "decoder"):
        mine, last = getattr(ours, stack), 1 if stack == "encoder" else 2
        relative = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        [table] = mine.encoding.parameters()
        take(table if table.shape == state[relative].shape else table.T, relative)
        take(mine.norm.weight, f"{stack}.final_layer_norm.weight")
        gated = ours.shape.activation == "gated-gelu"
        mlp = {"mlp_norm": f"layer.{last}.layer_norm"}
        mlp["mlp.down_proj"] = f"layer.{last}.DenseReluDense.wo"
        mlp["mlp.up_proj"] = f"layer.{last}.DenseReluDense.{'wi_1' if gated else 'wi'}"
        mlp["mlp.gate_proj"] = f"layer.{last}.DenseReluDense.wi_0"
        for name, parameter in mine.blocks.named_parameters():
            number, rest = name.removesuffix(".weight").split(".", 1)
            take(parameter, f"{stack}.block.{number}.{(NAMES | mlp)[rest]}.weight")
    assert not left


@pytest.mark.parametrize(
    ("activation", "tied"), [("relu", True), ("gated-gelu", False)], ids=["t5", "t5-1.1"]
)
@torch.no_grad()
def test_logits_equal_those_of_t5_with_the_same_weights(activation, tied):
    transformers = pytest.importorskip("transformers")
    if not catalogue.known("positions/t5_bias"):
        pytest.skip("there is no positions/t5_bias yet")
    config = transformers.T5Config(
        vocab_size=90,
        d_model=32,
        d_kv=6,
        d_ff=40,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=4,
        feed_forward_proj=activation,
        tie_word_embeddings=tied,
    )
    theirs = scattered(transformers.T5ForConditionalGeneration(config))
    shape = EncoderDecoderShape(
        vocab_size=90,
        d_model=32,
        d_head=6,
        d_ff=40,
        n_encoder_layers=2,
        n_decoder_layers=3,
        n_heads=4,
        activation=activation,
        tied=tied,
    )
    ours = EncoderDecoder(shape, encoding=catalogue.load("positions/t5_bias")()).eval()
    copy_from_t5(ours, theirs)
    ids, decoder_ids = texts()
    keep = torch.arange(19)[None] < torch.tensor([[19], [12]])
    out = theirs(input_ids=ids, attention_mask=keep.long(), decoder_input_ids=decoder_ids)
    agree(ours(ids, decoder_ids, keep=keep), out.logits)


@pytest.mark.parametrize("name", [None, "positions/rope", "positions/t5_bias"])
@torch.no_grad()
def test_decoding_with_a_state_equals_one_pass(name):
    model = encoded(name).double()
    ids, decoder_ids = texts()
    keep = torch.arange(19)[None] < torch.tensor([[19], [12]])
    whole = model(ids, decoder_ids, keep=keep)
    state = model.init_state(ids, 11, keep=keep)
    parts = [model.step(part, state) for part in decoder_ids.split([4, 1, 1, 5], dim=1)]
    agree(torch.cat(parts, dim=1), whole, 1e-9)


@torch.no_grad()
def test_padding_of_the_encoder_changes_nothing():
    model = encoded("positions/rope")
    ids, decoder_ids = texts()
    keep = torch.arange(19)[None] < torch.tensor([[19], [12]])
    padded = model(ids, decoder_ids, keep=keep)
    agree(padded[1:], model(ids[1:, :12], decoder_ids[1:]))


@torch.no_grad()
def test_the_decoder_sees_nothing_later_and_the_encoder_everything():
    model = encoded("positions/rope")
    ids, decoder_ids = texts()
    later = decoder_ids.clone()
    later[:, 6:] = 0
    before, after = model(ids, decoder_ids), model(ids, later)
    assert torch.equal(before[:, :6], after[:, :6])
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 90
    assert not torch.allclose(model.encode(ids)[:, 0], model.encode(changed)[:, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_encoder_layers": 0}, "n_encoder_layers must be at least 1, got 0"),
        ({"d_model": 30}, "30 is no multiple of n_heads 4"),
        ({"d_model": 32, "n_heads": 0}, "n_heads must be at least 1, got 0"),
    ],
)
def test_shapes_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        EncoderDecoderShape(**changes)
