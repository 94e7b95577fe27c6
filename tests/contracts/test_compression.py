"""What every compression technique satisfies, over all techniques of the family.

Five models of two blocks, the first of which is compressed: this project's decoder and encoder, a
Llama of transformers with and without shared key/value heads, and a BERT. Calibration has fewer
tokens than a layer has inputs, so that no technique may rely on a Hessian of full rank.
"""

import copy
import json
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from harness import catalogue
from impls.compression._hosts import replace_module
from impls.compression.interface import (
    Calibration,
    CompressedLinear,
    LayerCompression,
    Packed,
    PackedError,
    linears_of,
    load,
    run,
    save,
)
from impls.models.checkpoint import read_tensors
from impls.models.decoder import Decoder, DecoderShape
from impls.models.encoder import Encoder, EncoderShape

TECHNIQUES = tuple(name for name in catalogue.techniques() if name.startswith("compression/"))
ROOT = Path(__file__).parents[2]
FIRST_BLOCK = "*.0.*"
VOCABULARY, WIDTH, HIDDEN = 32, 64, 128
NUMBERS_REFUSED = (  # of fields that several techniques have
    ("bits", 1),
    ("bits", 9),
    ("group", 0),
    ("sparsity", -0.5),
    ("sparsity", 1.5),
    ("damp", -1.0),
    ("block", 0),
    ("steps", -1),
    ("percentile", 101.0),
)


def such(claim):
    """Over the techniques of which a claim holds."""
    return pytest.mark.parametrize("name", [n for n in TECHNIQUES if claim(catalogue.load(n))])


def names_of(technique):
    return {field.name for field in fields(technique)}


STORING = tuple(name for name in TECHNIQUES if name != "compression/layer_reduction")  # all layers

every_technique = pytest.mark.parametrize("name", TECHNIQUES)
every_storing_technique = pytest.mark.parametrize("name", STORING)
every_layer_technique = such(lambda technique: issubclass(technique, LayerCompression))
every_technique_that_treats_layers_alone = such(
    lambda technique: getattr(technique, "compressed", None) is LayerCompression.compressed
)
every_grouped_technique = such(lambda technique: "group" in names_of(technique))


def decoder():
    shape = DecoderShape(
        vocab_size=VOCABULARY, d_model=WIDTH, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=HIDDEN
    )
    return Decoder(shape)


ENCODER = {
    "vocab_size": VOCABULARY,
    "d_model": WIDTH,
    "n_layers": 2,
    "n_heads": 4,
    "d_ff": HIDDEN,
    "mlm_head": False,
}


def encoder():
    return Encoder(EncoderShape(**ENCODER))


def llama(heads=4):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=heads,
        use_cache=False,
    )
    return transformers.LlamaForCausalLM(config)


def llama_of_shared_heads():
    return llama(heads=2)


def bert():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    return transformers.BertModel(config, add_pooling_layer=False)


MODELS = {maker.__name__: maker for maker in (decoder, encoder, llama, llama_of_shared_heads, bert)}
every_model = pytest.mark.parametrize("kind", MODELS)


@cache
def model_of(kind):
    """One model of a kind, shared by all tests: none may change it."""
    torch.manual_seed(0)
    return MODELS[kind]().eval()


def ids(batch=2, t=24, seed=1):
    return torch.randint(VOCABULARY, (batch, t), generator=torch.Generator().manual_seed(seed))


def built(name, **options):
    """A technique by default, but for loops that are long."""
    technique = catalogue.load(name)
    short = {
        field.name: min(field.default, 5) for field in fields(technique) if field.name == "steps"
    }
    return technique(**{**short, **options})


def compressed(name, model, tokens=None, layers=FIRST_BLOCK, **options):
    calibration = Calibration([ids() if tokens is None else tokens])
    return built(name, **options).compressed(model, calibration, layers=layers)


@cache
def made(name, kind):
    """What a technique makes of the model of a kind, and whether it left that as it was."""
    model = model_of(kind)
    before, answers = state(model), outputs(model)
    small = compressed(name, model)
    left = same(before, state(model)) and torch.equal(outputs(model), answers)
    return small, left and not layers_of(model)


def small_of(name, kind):
    """What a technique by default makes of the model of a kind, shared by all tests."""
    return made(name, kind)[0]


def layers_of(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, CompressedLinear)}


def some_layers(name):
    return layers_of(small_of(name, "encoder"))  # with biases


@torch.no_grad()
def outputs(model, tokens=None):
    found = run(model, ids(seed=2) if tokens is None else tokens)
    return found if isinstance(found, torch.Tensor) else found[0]


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def plain(layer, dtype):
    """The linear layer a compressed one stands for, its input rounded as the layer's own is."""
    linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    linear = linear.to(dtype)
    with torch.no_grad():
        if layer.activation is None:
            linear.weight.copy_(layer.dequantize())
        else:
            linear.weight.copy_(layer.weight.dequantize())
        if layer.bias is not None:
            linear.bias.copy_(layer.bias)
    if layer.activation is None:
        return linear
    return nn.Sequential(layer.input_map or nn.Identity(), layer.activation, linear)


def stood_for(model, dtype=torch.float32):
    """A copy in a dtype with each compressed layer as the plain one it stands for."""
    found = copy.deepcopy(model).to(dtype)
    for name, layer in layers_of(model).items():
        parent, _, last = name.rpartition(".")
        setattr(found.get_submodule(parent), last, plain(layer, dtype))
    return found


def uncompressed_like(model):
    """A model of the same kind and depth, of plain layers with other weights."""
    found = copy.deepcopy(model)
    for name, layer in layers_of(model).items():
        has_bias = layer.bias is not None
        replace_module(found, name, nn.Linear(layer.in_features, layer.out_features, bias=has_bias))
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.normal_()
    return found


def assert_as_exact_as(y, naive, exact):
    """Not further from the exact result than twice what the naive computation is."""
    y, naive, exact = (x.detach().double() for x in (y, naive, exact))
    unit = torch.finfo(torch.float32).eps * exact.norm()
    assert (y - exact).norm() <= 2 * (naive - exact).norm() + unit


@every_model
@every_technique
def test_the_model_given_is_left_and_its_copy_answers(name, kind):
    small, left = made(name, kind)
    assert left
    assert not small.training
    assert outputs(small).shape == outputs(model_of(kind)).shape
    assert outputs(small).isfinite().all()


@every_model
@every_storing_technique
def test_outputs_are_those_of_the_weights_the_layers_stand_for(name, kind):
    """Rounded inputs are compared layer by layer: one more rounding may move a code."""
    small = small_of(name, kind)
    assert set(layers_of(small)) == set(linears_of(model_of(kind), FIRST_BLOCK))
    for layer in layers_of(small).values():
        x = torch.randn(5, layer.in_features, generator=torch.Generator().manual_seed(3))
        exact = plain(layer, torch.float64)(x.double())
        assert_as_exact_as(layer(x), plain(layer, torch.float32)(x), exact)
    if all(layer.activation is None for layer in layers_of(small).values()):
        exact = outputs(stood_for(small, torch.float64))
        assert_as_exact_as(outputs(small), outputs(stood_for(small)), exact)


@every_model
@every_technique
def test_a_saved_model_loads_and_answers_bit_for_bit(name, kind, tmp_path):
    small = small_of(name, kind)
    save(small, tmp_path)
    again = load(uncompressed_like(small), tmp_path)
    assert same(state(small), state(again))
    assert torch.equal(outputs(small), outputs(again))


@every_storing_technique
def test_bytes_are_those_of_the_tensors_in_the_file(name, tmp_path):
    small = small_of(name, "encoder")
    save(small, tmp_path)
    path = tmp_path / "compressed.safetensors"
    length = int.from_bytes(path.read_bytes()[:8], "little")
    told = json.loads(path.read_bytes()[8 : 8 + length])
    held = Counter()
    for key, tensor in told.items():
        if key != "__metadata__":
            start, end = tensor["data_offsets"]
            held.update({n: end - start for n in layers_of(small) if key.startswith(f"{n}.")})
    assert held == {layer: module.nbytes() for layer, module in layers_of(small).items()}
    assert path.stat().st_size == 8 + length + sum(t.nbytes for t in read_tensors(path).values())


@every_storing_technique
def test_a_layer_unpacks_to_the_bits_that_were_packed(name):
    for layer in some_layers(name).values():
        packed = layer.pack()
        header = json.loads(json.dumps(packed.header))
        again = CompressedLinear.unpack(Packed(header, packed.tensors))
        x = torch.randn(3, 2, layer.in_features)
        assert torch.equal(again.dequantize(), layer.dequantize())
        assert torch.equal(again(x), layer(x))
        assert again.nbytes() == layer.nbytes() == sum(t.nbytes for t in packed.tensors.values())


AGAIN = """
import sys
from pathlib import Path
from impls.compression.interface import load, save
from impls.models.encoder import Encoder, EncoderShape
for name in sys.argv[1:]:
    model = Encoder(EncoderShape(%s))
    save(load(model, Path(name)), Path(name) / "again")
"""


def test_files_load_in_a_process_that_knows_no_technique(tmp_path):
    """Kinds of weights, maps and roundings are found by their names alone."""
    folders = [tmp_path / str(n) for n in range(len(STORING))]
    for name, folder in zip(STORING, folders, strict=True):
        save(small_of(name, "encoder"), folder)
    program = AGAIN % ", ".join(f"{key}={value}" for key, value in ENCODER.items())
    subprocess.run([sys.executable, "-c", program, *map(str, folders)], check=True, cwd=ROOT)
    for name, folder in zip(STORING, folders, strict=True):
        for file in ("compressed.safetensors", "compressed.json"):
            assert (folder / file).read_bytes() == (folder / "again" / file).read_bytes(), name


def one_packed(name):
    packed = next(iter(some_layers(name).values())).pack()
    return copy.deepcopy(packed.header), dict(packed.tensors)


@every_storing_technique
def test_a_layer_that_lacks_a_tensor_or_has_another_is_refused(name):
    header, tensors = one_packed(name)
    for lost, tensor in tensors.items():
        others = {key: value for key, value in tensors.items() if key != lost}
        other_type = torch.int64 if tensor.dtype != torch.int64 else torch.int32
        for wrong in (
            others,
            {**others, lost: tensor.to(other_type)},
            {**others, lost: torch.cat((tensor, tensor))},
        ):
            with pytest.raises(PackedError, match=lost):
                CompressedLinear.unpack(Packed(header, wrong))
    with pytest.raises(PackedError, match="surplus"):
        CompressedLinear.unpack(Packed(header, {**tensors, "surplus": torch.zeros(1)}))


@every_storing_technique
def test_a_layer_of_a_later_version_or_of_an_unknown_kind_is_refused(name):
    header, tensors = one_packed(name)
    later = {**header, "format": header["format"].replace("1", "2")}
    with pytest.raises(PackedError, match="compressed linear 2"):
        CompressedLinear.unpack(Packed(later, tensors))
    unknown = {**header, "weight": {**header["weight"], "kind": "tomorrow"}}
    with pytest.raises(PackedError, match="tomorrow"):
        CompressedLinear.unpack(Packed(unknown, tensors))
    for lost in header:
        with pytest.raises(PackedError):
            CompressedLinear.unpack(Packed({k: v for k, v in header.items() if k != lost}, tensors))


@every_technique
def test_the_same_input_gives_the_same_bits(name):
    assert same(state(compressed(name, model_of("decoder"))), state(small_of(name, "decoder")))


@pytest.mark.parametrize(
    ("kind", "argument", "told", "layer"),
    [
        ("decoder", "ids", "keep", "*.0.*o_proj"),
        ("bert", "input_ids", "attention_mask", "*.0.attention.output.dense"),
    ],
    ids=["decoder", "bert"],
)
@every_technique
def test_what_stands_in_the_padding_changes_not_one_bit(name, kind, argument, told, layer):
    keep = torch.ones(2, 24, dtype=torch.bool)
    keep[1, 15:] = False
    found = [
        compressed(
            name, model_of(kind), {argument: torch.where(keep, ids(), pad), told: keep}, layer
        )
        for pad in (0, 7)
    ]
    assert same(state(found[0]), state(found[1]))


@every_storing_technique
def test_a_model_in_bfloat16_stays_in_it(name):
    small = compressed(name, copy.deepcopy(model_of("decoder")).bfloat16())
    y = outputs(small)
    assert y.dtype == torch.bfloat16
    if all(layer.activation is None for layer in layers_of(small).values()):
        naive = outputs(stood_for(small, torch.bfloat16))
        assert_as_exact_as(y, naive, outputs(stood_for(small, torch.float64)))


@every_storing_technique
def test_a_cast_of_the_model_leaves_what_is_stored(name):
    small = copy.deepcopy(small_of(name, "encoder"))
    before = {n: layer.dequantize() for n, layer in layers_of(small).items()}
    sizes = {n: layer.nbytes() for n, layer in layers_of(small).items()}
    small.to(torch.bfloat16)
    assert same(before, {n: layer.dequantize() for n, layer in layers_of(small).items()})
    assert sizes == {n: layer.nbytes() for n, layer in layers_of(small).items()}
    assert outputs(small).dtype == torch.bfloat16


@every_storing_technique
def test_gradients_reach_the_input_through_the_weight_stood_for(name):
    for layer in some_layers(name).values():
        if layer.activation is not None:
            continue  # rounding has none
        x = torch.randn(4, layer.in_features, requires_grad=True)
        y = torch.randn(4, layer.out_features)
        layer(x).backward(y)
        exact = y.double() @ layer.dequantize().double()
        assert_as_exact_as(x.grad, y @ layer.dequantize(), exact)


@every_storing_technique
def test_no_tokens_are_no_tokens(name):
    for layer in some_layers(name).values():
        assert layer(torch.zeros(2, 0, layer.in_features)).shape == (2, 0, layer.out_features)


@every_technique
def test_rows_of_zeros_and_inputs_that_are_never_there_give_finite_numbers(name):
    model = copy.deepcopy(model_of("decoder"))
    with torch.no_grad():
        for linear in linears_of(model, FIRST_BLOCK).values():
            linear.weight[3] = 0.0  # and with it an input of what reads this layer's output
            linear.weight[:, 5] = 0.0
        model.blocks[0].attention_norm.weight[7] = 0.0
    small = compressed(name, model)
    assert outputs(small).isfinite().all()
    assert all(layer.dequantize().isfinite().all() for layer in layers_of(small).values())


@every_technique
def test_weights_that_are_not_finite_are_refused(name):
    for bad in (torch.nan, torch.inf):
        model = copy.deepcopy(model_of("decoder"))
        with torch.no_grad():
            model.blocks[0].mlp.down_proj.weight[1, 2] = bad
        with pytest.raises(ValueError, match="not finite"):
            compressed(name, model, layers="*.0.*down_proj")


@every_technique
def test_a_pattern_that_fits_no_layer_is_refused(name):
    technique, calibration = built(name), Calibration([ids()])
    with pytest.raises(ValueError, match=r"'nowhere\*'"):
        technique.compressed(model_of("decoder"), calibration, layers="nowhere*")


@every_technique
def test_a_model_without_blocks_is_refused(name):
    with pytest.raises(ValueError, match="blocks"):
        built(name).compressed(nn.Linear(2, 2), Calibration([ids()]))


@every_technique
def test_calibration_is_either_asked_for_or_not_looked_at(name):
    technique, model = built(name), model_of("decoder")
    try:
        small = technique.compressed(model, layers=FIRST_BLOCK)
    except ValueError as error:
        assert f"{type(technique).__name__} needs calibration" in str(error)  # noqa: PT017
    else:
        assert not technique.needs
        assert same(state(small), state(small_of(name, "decoder")))


@every_grouped_technique
def test_groups_that_do_not_divide_are_refused(name):
    axes = names_of(catalogue.load(name)) & {"granularity"}
    options = {"group": 48, **dict.fromkeys(axes, "group")}
    with pytest.raises(ValueError, match=r"groups of 48 do not divide 64"):
        compressed(name, model_of("decoder"), **options)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        (name, field, value)
        for name in TECHNIQUES
        for field, value in NUMBERS_REFUSED
        if field in names_of(catalogue.load(name))
    ],
)
def test_a_number_out_of_bounds_is_refused_by_name(name, field, value):
    with pytest.raises(ValueError, match=rf"{field} must be .* got {value}"):
        catalogue.load(name)(**{field: value})


@every_technique_that_treats_layers_alone
def test_a_layer_alone_is_compressed_as_in_the_model(name):
    technique, model = built(name), model_of("decoder")
    chosen = linears_of(model, FIRST_BLOCK)
    known = {}
    if technique.needs:
        known = Calibration([ids()]).collect(model, list(chosen), technique.needs)
    for layer, module in layers_of(small_of(name, "decoder")).items():
        alone = technique.compress(chosen[layer], known.get(layer))
        assert torch.equal(alone.dequantize(), module.dequantize())
        x = torch.randn(3, module.in_features)
        assert torch.equal(alone(x), module(x))
