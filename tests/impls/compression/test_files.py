"""Compressed models as folders: whole or refused, and a refused one changes nothing."""

import json

import pytest
import torch

from impls.compression import NF4, RTN
from impls.compression.interface import PackedError, load, save
from impls.models.decoder import Decoder, DecoderShape

TENSORS, HEADER = "compressed.safetensors", "compressed.json"


def decoder(seed=0, **changes):
    torch.manual_seed(seed)
    dimensions = {"vocab_size": 32, "d_model": 64, "n_layers": 2, "n_heads": 4, "d_ff": 128}
    return Decoder(DecoderShape(**{**dimensions, **changes})).eval()


def ids():
    return torch.arange(24).view(2, 12)


@pytest.fixture
def folder(tmp_path):
    small = NF4().compressed(RTN(bits=3).compressed(decoder(), layers="*.mlp.*"))
    save(small, tmp_path / "small")
    return tmp_path / "small"


def assert_refused(folder, message, model=None):
    """Loading fails with one clear error, and the model is as it was."""
    model = model or decoder(seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(PackedError, match=message):
        load(model, folder)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
def test_layers_of_several_kinds_come_back_bit_for_bit(tmp_path, tied):
    small = NF4().compressed(
        RTN(bits=3).compressed(decoder(tied=tied), layers="*.mlp.*"), layers="blocks.1.*"
    )
    save(small, tmp_path)
    again = load(decoder(seed=1, tied=tied), tmp_path)
    assert torch.equal(again(ids()), small(ids()))
    assert sorted(path.name for path in tmp_path.iterdir()) == [HEADER, TENSORS]
    bytes_of_weights = sum(tensor.nbytes for tensor in small.state_dict().values())
    assert (tmp_path / TENSORS).stat().st_size < bytes_of_weights + 30_000


def test_writing_over_a_folder_replaces_it(folder):
    save(RTN(bits=8).compressed(decoder()), folder)
    assert load(decoder(seed=1), folder).blocks[0].mlp.up_proj.weight.bits == 8


@pytest.mark.parametrize("name", [TENSORS, HEADER])
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    assert_refused(folder, f"there is no .*{name}")


@pytest.mark.parametrize("name", [TENSORS, HEADER])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_file_cut_short_is_refused(folder, name, share):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(share * len(whole))])
    assert_refused(folder, f"{name} is cut short")


def change(folder, **changes):
    told = json.loads((folder / HEADER).read_text())
    (folder / HEADER).write_text(json.dumps({**told, **changes}))


@pytest.mark.parametrize("told", [{"format": "llmatrix compressed model 2"}, {"format": None}])
def test_another_format_is_refused(folder, told):
    change(folder, **told)
    assert_refused(folder, "was written by something else")


def test_a_list_in_the_place_of_the_header_is_refused(folder):
    (folder / HEADER).write_text("[]")
    assert_refused(folder, "was written by something else")


@pytest.mark.parametrize("layers", [None, [], {"blocks.0.mlp.up_proj": None}], ids=str)
def test_layers_that_are_not_told_are_refused(folder, layers):
    change(folder, layers=layers)
    assert_refused(folder, "does not tell its layers")


def test_a_layer_of_a_later_version_is_refused_by_its_name(folder):
    layers = json.loads((folder / HEADER).read_text())["layers"]
    layers["blocks.1.mlp.up_proj"]["format"] = "llmatrix compressed linear 2"
    change(folder, layers=layers)
    assert_refused(folder, r"layer blocks\.1\.mlp\.up_proj: .*compressed linear 2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_ff": 192}, r"has blocks\.0\.mlp\.gate_proj of shape \(128, 64\), the model's is"),
        ({"n_layers": 1}, r"has a layer blocks\.1\..*, the model has none"),
        ({"n_layers": 3}, "lacks tensors of this model"),
        ({"vocab_size": 33}, r"has embedding\.weight of shape \(32, 64\)"),
        ({"tied": False}, "lacks tensors of this model"),
    ],
    ids=str,
)
def test_a_model_of_another_shape_is_refused(folder, changes, message):
    assert_refused(folder, message, decoder(seed=1, **changes))
