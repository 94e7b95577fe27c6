"""SmoothQuant: nothing changes before rounding, the U over alpha, where scales go."""

import warnings

import pytest
import torch
from torch import nn

from impls.attention import Retention
from impls.compression import RTN, SmoothQuant
from impls.compression._dense import DenseWeight
from impls.compression._inputs import ChannelScale
from impls.compression.interface import (
    Calibration,
    CompressedLinear,
    LayerStatistics,
    Parts,
    inject_outliers,
    layer_errors,
    linears_of,
    load,
    run,
    save,
)
from impls.models.decoder import Decoder, DecoderShape
from impls.models.encoder import Encoder, EncoderShape

SIZES = {"vocab_size": 32, "d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 64}


def decoder(**changes):
    torch.manual_seed(0)
    model = Decoder(DecoderShape(**{**SIZES, **changes}))
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.2)
    return model.double().eval()


def encoder():
    torch.manual_seed(0)
    model = Encoder(EncoderShape(**SIZES, mlm_head=False))
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.2)
    return model.double().eval()


def calibration():
    generator = torch.Generator().manual_seed(1)
    return Calibration([torch.randint(32, (2, 24), generator=generator) for _ in range(2)])


def in_place(model, moves):
    """The smoothed model with its maps before its layers, their weights as they are."""
    for name, linear in linears_of(model).items():
        if name in moves.maps:
            layer = CompressedLinear(
                Parts(DenseWeight(linear.weight), None, moves.maps[name]), linear.bias
            )
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, layer)
    return model


@torch.no_grad()
@pytest.mark.parametrize("where", ["norms", "all"])
@pytest.mark.parametrize(
    "model", [decoder(), decoder(n_kv_heads=2), encoder()], ids=["decoder", "shared", "encoder"]
)
def test_nothing_changes_before_rounding(model, where):
    smooth, moves = SmoothQuant(where=where, alpha=0.7).smoothed(model, calibration())
    old, new = model.state_dict(), smooth.state_dict()
    assert sum(not torch.equal(old[name], new[name]) for name in old) > 6
    ids = torch.randint(32, (3, 20), generator=torch.Generator().manual_seed(5))
    before = run(model, ids)
    gap = (run(in_place(smooth, moves), ids) - before).abs().max()
    assert gap <= 1e-10 * before.abs().max()  # 1e5 roundings of 1e-16 at the most


@pytest.mark.parametrize(
    ("model", "where", "mapped"),
    [
        (decoder(), "norms", set()),
        (decoder(), "all", set()),
        (decoder(n_kv_heads=2), "all", {"attention.o_proj"}),
        (
            encoder(),
            "norms",
            {"attention.q_proj", "attention.k_proj", "attention.v_proj", "up_proj"},
        ),
    ],
)
def test_maps_stay_only_where_nothing_can_take_the_scale(model, where, mapped):
    _, moves = SmoothQuant(where=where).smoothed(model, calibration())
    assert {name.removeprefix("blocks.0.") for name in moves.maps if ".0." in name} == mapped


def test_a_part_of_a_site_is_not_folded():
    _, moves = SmoothQuant().smoothed(decoder(), calibration(), layers="*q_proj")
    assert set(moves.maps) == {"blocks.0.attention.q_proj", "blocks.1.attention.q_proj"}


def test_a_value_layer_s_output_is_no_source_where_attention_is_not_a_mixture():
    torch.manual_seed(0)
    model = Decoder(DecoderShape(**SIZES), attention=Retention()).double().eval()
    smooth, moves = SmoothQuant(where="all").smoothed(model, calibration())
    ids = torch.randint(32, (3, 20), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        before = run(model, ids)
        after = run(in_place(smooth, moves), ids)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "n_folded"),
    [
        ("llama", 14),
        ("stablelm", 14),  # norms with a bias
        ("bert", 2),  # values alone: post-norm, and no gate
        ("gemma", 0),  # norms multiply by 1 plus their weight
        ("qwen3", 0),  # norms of heads, which are not known
        ("phi", 0),  # one norm feeds attention and feed-forward
    ],
)
def test_models_of_transformers_compute_the_same_whatever_their_blocks_are(kind, n_folded):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8, "pad_token_id": 0}
    config = transformers.AutoConfig.for_model(kind, **sizes, **heads)
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.2)
    smooth, moves = SmoothQuant(where="all", alpha=0.7).smoothed(model, calibration())
    assert len(moves.inputs) == n_folded
    ids = torch.randint(1, 32, (3, 20), generator=torch.Generator().manual_seed(5))
    before, after = run(model, ids)[0], run(in_place(smooth, moves), ids)[0]
    assert (after - before).abs().max() <= 1e-5 * before.abs().max()  # their norms are in float32


def test_the_scale_is_the_paper_s_over_all_layers_that_read_the_input():
    model = decoder()
    names = [f"blocks.0.attention.{n}_proj" for n in "qkv"]
    known = calibration().collect(model, names, frozenset({"absmax"}))
    w = torch.stack([model.get_submodule(n).weight.abs().amax(0) for n in names]).amax(0)
    wanted = known[names[0]].absmax.double() ** 0.6 / w**0.4
    smooth, _ = SmoothQuant(alpha=0.6).smoothed(model, calibration())
    found = model.blocks[0].attention_norm.weight / smooth.blocks[0].attention_norm.weight
    torch.testing.assert_close(found, wanted.detach(), rtol=1e-6, atol=0)  # s is float32


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.9])
def test_the_scale_of_one_layer_is_torchao_s(alpha):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kernels for GPUs
        core = pytest.importorskip("torchao.prototype.smoothquant.core")
    linear, x = layer_with_outliers()
    observer = core.SmoothQuantObserver(linear.weight.detach(), alpha)
    observer(x)
    statistics = LayerStatistics()
    statistics.add(x, frozenset({"absmax"}))
    found = SmoothQuant(alpha=alpha).compress(linear, statistics).input_map.scale
    wanted, _, _ = observer.calculate_qparams()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)  # it adds 1e-7 to each maximum


def layer_with_outliers():
    """Inputs with channels 60 and 40 times larger, as large models have them, and a layer."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 128, generator=generator)
    x[:, 7] *= 60
    x[:, 77] *= 40
    linear = nn.Linear(128, 64, bias=False)
    nn.init.normal_(linear.weight, std=0.05, generator=generator)
    return linear, x


def error(technique):
    linear, x = layer_with_outliers()
    statistics = LayerStatistics()
    statistics.add(x, frozenset({"absmax", "range"}))
    with torch.no_grad():
        exact = linear(x)
        return float((technique.compress(linear, statistics)(x) - exact).norm() / exact.norm())


STATIC = {"activation_granularity": "tensor", "activation_static": True}


def test_the_error_over_alpha_is_a_u():
    """Relative error with static scales of tensors; 0.098 without, least near 0.5."""
    plain = error(RTN(bits=8, symmetric=True, granularity="tensor", activation_bits=8, **STATIC))
    found = [error(SmoothQuant(alpha=alpha, **STATIC)) for alpha in (0, 0.25, 0.5, 0.75, 1)]
    assert found[0] > found[1] > found[2] < found[3] < found[4]
    assert found[2] < plain / 4
    assert max(found) < plain


def test_a_static_range_is_that_of_the_smoothed_input():
    linear, x = layer_with_outliers()
    statistics = LayerStatistics()
    statistics.add(x, frozenset({"absmax"}))
    static = SmoothQuant(**STATIC).compress(linear, statistics)
    dynamic = SmoothQuant(activation_granularity="tensor").compress(linear, statistics)
    torch.testing.assert_close(static(x), dynamic(x))
    with pytest.raises(ValueError, match="another pass"):
        SmoothQuant(**STATIC, activation_range="mse").compress(linear, statistics)


@torch.no_grad()
def test_static_ranges_of_a_model_are_found_behind_its_maps():
    model = encoder().float()
    small = SmoothQuant(where="all", **STATIC).compressed(model, calibration())
    for name, layer in small.named_modules():
        if isinstance(layer, CompressedLinear) and isinstance(layer.input_map, ChannelScale):
            known = calibration().collect(model, [name], frozenset({"absmax"}))[name]
            bound = (known.absmax / layer.input_map.scale).max()
            found = layer.activation.bounds.abs().max()
            torch.testing.assert_close(found, bound, rtol=1e-5, atol=0)


def test_rounding_a_model_with_outliers_errs_less_smoothed():
    model = inject_outliers(decoder().float(), factor=50.0)
    options = {
        "bits": 8,
        "symmetric": True,
        "granularity": "tensor",
        "activation_bits": 8,
        **STATIC,
    }
    plain = layer_errors(model, RTN(**options).compressed(model, calibration()), calibration())
    small = SmoothQuant(**STATIC).compressed(model, calibration())
    smooth = layer_errors(model, small, calibration())
    for name, found in plain.items():
        if name.endswith(("q_proj", "up_proj")):
            assert smooth[name].output_error < found.output_error / 4


def test_folded_layers_are_measured_against_the_layers_they_replaced(tmp_path):
    model = decoder().float()
    small = SmoothQuant(where="all").compressed(model, calibration())
    found = layer_errors(model, small, calibration())
    assert max(error.output_error for error in found.values()) < 1e-3  # 8 bits, no outliers
    assert min(error.sqnr_db for error in found.values()) > 25
    save(small, tmp_path)
    with pytest.raises(ValueError, match="was loaded"):
        layer_errors(model, load(decoder().float(), tmp_path), calibration())


def test_channels_and_weights_of_zeros_keep_their_scale():
    linear, x = layer_with_outliers()
    with torch.no_grad():
        linear.weight[:, 3] = 0
    x[:, 5] = 0
    statistics = LayerStatistics()
    statistics.add(x, frozenset({"absmax"}))
    scale = SmoothQuant().compress(linear, statistics).input_map.scale
    assert scale[3] == scale[5] == 1
    assert scale.isfinite().all()


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_alpha_is_a_share(alpha):
    with pytest.raises(ValueError, match=f"alpha must be from 0 to 1, got {alpha}"):
        SmoothQuant(alpha=alpha)
