"""AWQ: never worse than rounding to nearest on what it was calibrated with, and why."""

import warnings

import pytest
import torch
from torch import nn

from impls.compression import AWQ, RTN
from impls.compression._grid import Grid
from impls.compression.awq import group_errors
from impls.compression.interface import (
    Calibration,
    CompressedLinear,
    LayerStatistics,
    inject_outliers,
    layer_errors,
    linears_of,
    run,
)
from impls.models.decoder import Decoder, DecoderShape
from impls.models.encoder import Encoder, EncoderShape

SIZES = {"vocab_size": 32, "d_model": 64, "n_layers": 2, "n_heads": 4, "d_ff": 128}
SITES = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))


def shaken(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.2)
    return model.eval()


def decoder(**changes):
    return shaken(Decoder(DecoderShape(**{**SIZES, **changes})))


MODELS = {
    "decoder": decoder(),
    "shared": decoder(n_kv_heads=2),
    "outliers": inject_outliers(decoder(), factor=20.0),
    "encoder": shaken(Encoder(EncoderShape(**SIZES, mlm_head=False))),
}


def calibration():
    generator = torch.Generator().manual_seed(1)
    return Calibration([torch.randint(32, (4, 24), generator=generator) for _ in range(2)])


def layer_and_inputs():
    """Inputs with two channels that are larger, a layer, and what it was seen to read."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 128, generator=generator)
    x[:, 7] *= 30
    x[:, 77] *= 20
    linear = nn.Linear(128, 64, bias=False)
    nn.init.normal_(linear.weight, std=0.05, generator=generator)
    statistics = LayerStatistics()
    statistics.add(x, frozenset({"hessian", "absmean"}))
    return linear, x, statistics


@torch.no_grad()
def error(technique):
    linear, x, statistics = layer_and_inputs()
    exact = linear(x)
    return float((technique.compress(linear, statistics)(x) - exact).norm() / exact.norm())


def test_alpha_of_0_is_rounding_to_nearest():
    linear, _, statistics = layer_and_inputs()
    alone = AWQ(tries=1, clip=False).compress(linear, statistics)
    nearest = RTN().compress(linear)
    assert torch.equal(alone.weight.codes, nearest.weight.codes)
    assert torch.equal(alone.dequantize(), nearest.dequantize())


@torch.no_grad()
def test_scale_and_choice_are_those_of_torchao():
    """Asymmetric groups of 64 in both; its observer keeps the inputs, ours their Hessian."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kernels for GPUs
        core = pytest.importorskip("torchao.prototype.awq.core")
        ao = pytest.importorskip("torchao.quantization")
    linear, x, statistics = layer_and_inputs()
    config = ao.IntxWeightOnlyConfig(
        weight_dtype=torch.int4,
        granularity=ao.PerGroup(64),
        mapping_type=ao.MappingType.ASYMMETRIC,
    )
    observer = core.AWQObserver(linear.weight, None, config)
    observer(x, linear(x))
    ours = AWQ(scale_dtype="float32").compress(linear, statistics)
    wanted = observer.calculate_qparams()
    assert wanted.unique().numel() > 1
    torch.testing.assert_close(ours.input_map.scale, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("scale_by", ["inputs", "inputs_and_weights"])
@pytest.mark.parametrize("bits", [3, 4])
def test_large_inputs_err_far_less_than_rounded_to_nearest(bits, scale_by, clip):
    found = error(AWQ(bits=bits, scale_by=scale_by, clip=clip))
    assert found < 0.6 * error(RTN(bits=bits))


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("scale_by", ["inputs", "inputs_and_weights"])
@pytest.mark.parametrize("kind", MODELS)
def test_no_site_errs_more_than_rounded_to_nearest_on_calibration(kind, scale_by, clip):
    model = MODELS[kind]
    small = AWQ(bits=3, scale_by=scale_by, clip=clip).compressed(model, calibration())
    found = layer_errors(model, small, calibration())
    plain = layer_errors(model, RTN(bits=3).compressed(model), calibration())
    outputs = sizes(model)
    for block in ("blocks.0.", "blocks.1."):
        for ends in SITES:
            names = [n for n in found if n.startswith(block) and n.endswith(ends)]
            wrong, nearest = (
                sum(errors[n].output_error * outputs[n] for n in names) for errors in (found, plain)
            )
            assert wrong <= nearest * (1 + 1e-3)  # scales of rows that were divided, in float16


@torch.no_grad()
def sizes(model):
    """The squared size of each layer's output."""
    found = dict.fromkeys(linears_of(model), 0.0)
    for name, linear in linears_of(model).items():
        for x in calibration().inputs(model, name):
            found[name] += float(nn.functional.linear(x, linear.weight).square().sum())
    return found


def test_layers_that_read_one_input_share_its_scale():
    small = AWQ().compressed(MODELS["encoder"], calibration())
    scales = [getattr(small.blocks[0].attention, f"{name}_proj").input_map.scale for name in "qkv"]
    assert torch.equal(scales[0], scales[1])
    assert torch.equal(scales[0], scales[2])
    assert scales[0].unique().numel() > 1


@torch.no_grad()
def test_scales_are_folded_where_they_can_be():
    maps = {
        kind: {
            name.removeprefix("blocks.0.")
            for name, layer in AWQ(bits=8).compressed(MODELS[kind], calibration()).named_modules()
            if isinstance(layer, CompressedLinear) and layer.input_map and ".0." in name
        }
        for kind in ("decoder", "shared", "encoder")
    }
    encoder = {"attention.q_proj", "attention.k_proj", "attention.v_proj", "up_proj", "down_proj"}
    assert maps == {"decoder": set(), "shared": {"attention.o_proj"}, "encoder": encoder}


@torch.no_grad()
@pytest.mark.parametrize("kind", MODELS)
def test_a_model_of_8_bits_answers_as_the_model(kind):
    """As well as one rounded to nearest; a scale folded wrongly would be an error of order 1."""
    model, ids = MODELS[kind], torch.randint(32, (2, 20))
    before = run(model, ids)
    after = run(AWQ(bits=8, group=16).compressed(model, calibration()), ids)
    nearest = run(RTN(bits=8, group=16).compressed(model), ids)
    assert (after - before).norm() < 2 * (nearest - before).norm() < 0.2 * before.norm()


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group", "input_channel"])
def test_errors_by_group_are_those_of_the_output(granularity):
    """Of one block at a time, the other weights exact; all tokens are in the Hessian."""
    _, x, statistics = layer_and_inputs()
    lost = torch.randn(64, 128, generator=torch.Generator().manual_seed(3))
    raster = Grid(granularity=granularity, group=32).raster(64, 128)
    found = group_errors(lost, statistics.hessian, raster)
    assert found.shape == raster
    for row in {0, raster[0] - 1}:
        for column in {0, raster[1] - 1}:
            block = torch.zeros(64, 128, dtype=torch.float64)
            rows = slice(row * 64 // raster[0], (row + 1) * 64 // raster[0])
            columns = slice(column * 128 // raster[1], (column + 1) * 128 // raster[1])
            block[rows, columns] = lost[rows, columns].double()
            wanted = (x.double() @ block.T).square().sum()
            torch.testing.assert_close(found[row, column], wanted, rtol=1e-10, atol=0)


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
def test_shrinking_ranges_never_costs_the_layer(granularity):
    options = {"bits": 3, "granularity": granularity}
    assert error(AWQ(**options)) <= error(AWQ(**options, clip=False)) * (1 + 1e-6)


def test_the_search_is_over_at_least_one_alpha():
    with pytest.raises(ValueError, match="tries must be at least 1, got 0"):
        AWQ(tries=0)
