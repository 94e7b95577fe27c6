"""Models to folders and back."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from harness import catalogue
from harness.errors import UsageError
from impls.models import checkpoint
from impls.models.checkpoint import CheckpointError
from impls.models.decoder import Decoder, DecoderShape
from impls.models.encoder import Encoder
from impls.models.encoder_decoder import EncoderDecoder
from impls.models.shapes import EncoderDecoderShape, EncoderShape

RoPE, Full = catalogue.load("positions/rope"), catalogue.load("attention/full")
TINY = DecoderShape(d_model=32, n_layers=1, n_heads=2)

MODELS = {
    "decoder": lambda: Decoder(TINY),
    "techniques": lambda: Decoder(TINY, encoding=RoPE(base=50.0, partial=0.5), attention=Full()),
    "encoder": lambda: Encoder(EncoderShape(d_model=32, n_layers=1, n_heads=2, mlm_head=False)),
    "encoder-decoder": lambda: EncoderDecoder(
        EncoderDecoderShape(d_model=32, n_encoder_layers=1, n_decoder_layers=1, tied=False)
    ),
}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_a_model_comes_back_as_it_was(tmp_path, build):
    model = build()
    checkpoint.save(model, tmp_path)
    back = checkpoint.load(tmp_path)
    assert type(back) is type(model)
    assert (back.shape, back.recipes) == (model.shape, model.recipes)
    ours, theirs = model.state_dict(), back.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_every_number_is_stored_once(tmp_path, build):
    model = build()
    checkpoint.save(model, tmp_path)
    stored = load_file(tmp_path / "weights.safetensors")
    buffers = sum(t.numel() for t in model.state_dict().values()) - model.n_parameters
    assert sum(t.numel() for t in stored.values()) == model.n_parameters + buffers


def test_a_tensor_with_two_names_is_stored_under_the_first(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3, bias=False)
            self.b = nn.Linear(3, 3, bias=False)
            self.b.weight = self.a.weight

    model = Tied()
    assert list(checkpoint.distinct(model)) == ["a.weight"]
    checkpoint.fill(model, {"a.weight": torch.ones(3, 3)}, "here")
    assert torch.equal(model.b.weight, torch.ones(3, 3))


def test_models_of_other_kinds_are_not_saved(tmp_path):
    with pytest.raises(ValueError, match="cannot save a Linear"):
        checkpoint.save(nn.Linear(2, 2), tmp_path)


@pytest.fixture
def saved(tmp_path):
    checkpoint.save(MODELS["techniques"](), tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_missing_and_cut_files_are_named(saved, name):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=f"{name} is cut short"):
        checkpoint.load(saved)
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"there is no .*{name}"):
        checkpoint.load(saved)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"format": "other"}, CheckpointError, "written by something else"),
        ({"kind": "diffusion"}, CheckpointError, "describes no model"),
        ({"shape": {"d_model": "wide"}}, CheckpointError, "d_model"),
        ({"encoding": {"name": "positions/rop", "options": {}}}, UsageError, "positions/rope"),
        ({"encoding": {"name": "positions/rope", "options": {"base": 0}}}, CheckpointError, "base"),
    ],
)
def test_descriptions_that_make_no_sense_are_refused(saved, changes, error, message):
    path = saved / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(error, match=message):
        checkpoint.load(saved)


def test_weights_of_another_shape_are_refused(saved):
    path = saved / "model.json"
    told = json.loads(path.read_text())
    told["shape"]["d_model"] = 64
    path.write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match=r"embedding.weight of shape \(256, 32\)"):
        checkpoint.load(saved)
