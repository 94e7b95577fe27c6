"""LLM.int8(): the authors' library, the decomposition, and what outliers do to it."""

import json

import pytest
import torch
from torch import nn

from impls.compression import RTN, LLMInt8
from impls.compression.interface import (
    Calibration,
    CompressedLinear,
    LayerStatistics,
    Packed,
    inject_outliers,
    layer_errors,
)
from impls.models.decoder import Decoder, DecoderShape

OUTLIERS = (7, 77)


def layer(bias=True):
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(128, 96, bias=bias)
    for parameter in linear.parameters():
        nn.init.normal_(parameter, std=0.05, generator=generator)
    return linear


def inputs(size=20.0):
    """Tokens with two channels that are large in every one of them."""
    x = torch.randn(64, 128, generator=torch.Generator().manual_seed(1))
    x[:, OUTLIERS] = size + x[:, OUTLIERS]
    return x


def seen(x):
    statistics = LayerStatistics()
    statistics.add(x, frozenset({"absmax"}))
    return statistics


def peer(linear, threshold):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    theirs = bitsandbytes.nn.Linear8bitLt(
        linear.in_features, linear.out_features, has_fp16_weights=False, threshold=threshold
    )
    theirs.load_state_dict(linear.half().state_dict())
    return theirs.eval()


@torch.no_grad()
@pytest.mark.parametrize("threshold", [0.0, 6.0])
def test_codes_and_outputs_are_the_authors_library_s(threshold):
    linear = layer().half()
    theirs = peer(linear, threshold).to("cpu")
    ours = LLMInt8(threshold=threshold).compress(linear)
    x = inputs().half()
    found, wanted = ours(x), theirs(x)
    state = theirs.state
    scale = ours.weight.scales[:, :1]
    torch.testing.assert_close(scale[:, 0], state.SCB.float() / 127)
    gap = (ours.weight.integers() - state.CB.int()).abs()
    levels = linear.weight.double() / scale.double()
    assert ((levels.abs() % 1 - 0.5).abs()[gap > 0] < 1e-5).all()  # halves, of float16 numbers
    assert gap.sum() <= 4
    # Each is a sum of two numbers rounded to float16, a bias added: half a unit each, of both.
    unit = torch.finfo(torch.float16).eps * float(wanted.abs().max())
    allowed = 3 * unit + x.float().abs() @ (gap * scale).T
    assert ((found.float() - wanted.float()).abs() <= allowed).all()
    if threshold:
        assert state.idx.tolist() == list(OUTLIERS)


@torch.no_grad()
def test_without_a_threshold_it_is_rounding_by_rows_and_tokens():
    linear, x = layer(), inputs()
    options = {"bits": 8, "symmetric": True, "granularity": "channel", "activation_bits": 8}
    plain = RTN(**options, scale_dtype="float32").compress(linear)
    assert torch.equal(LLMInt8(threshold=0).compress(linear)(x), plain(x))
    far = LLMInt8(threshold=1e3).compress(linear)
    assert torch.equal(far(x), plain(x))


@torch.no_grad()
@pytest.mark.parametrize("outliers", ["batch", "calibration"])
def test_both_products_add_up_to_that_of_the_rounded_input(outliers):
    ours = LLMInt8(outliers_by=outliers).compress(layer(), seen(inputs()))
    x = inputs()
    rounded = ours.activation(x)
    assert torch.equal(rounded[:, OUTLIERS], x[:, OUTLIERS])
    rest = [column for column in range(128) if column not in OUTLIERS]
    assert (rounded[:, rest] - x[:, rest]).abs().max() <= x[:, rest].abs().max() / 127 / 2 * 1.001
    wanted = rounded.double() @ ours.weight.dequantize().double().T + ours.bias.double()
    naive = nn.functional.linear(rounded, ours.weight.dequantize(), ours.bias)
    allowed = 2 * (naive - wanted).abs().max()
    assert (ours(x) - wanted).abs().max() <= allowed + 1e-6 * wanted.abs().max()


@torch.no_grad()
def errors(size):
    """Relative errors under outliers of a size: rounded as others are, and the two ways apart."""
    linear, x = layer(bias=False), inputs(size)
    exact = linear(x)
    techniques = (LLMInt8(threshold=0), LLMInt8(), LLMInt8(outliers_by="calibration"))
    rest = exact - x[:, OUTLIERS] @ linear.weight[:, OUTLIERS].T
    return [
        float((t.compress(linear, seen(x))(x) - exact).norm() / rest.norm()) for t in techniques
    ]


def test_outliers_leave_the_error_of_the_others_as_it_is():
    """Relative to what the other channels give; float16 weights err by 2^-11 of the outliers'."""
    small, large = errors(20.0), errors(500.0)
    assert large[0] > 10 * small[0]  # 8 bits for all
    assert large[2] < 2 * small[2] < small[0]
    assert large[1] > large[2]  # 8-bit weights of outliers err in proportion


@torch.no_grad()
def test_a_threshold_that_keeps_all_apart_is_float16():
    linear, x = layer(), inputs()
    ours = LLMInt8(threshold=1e-6, outliers_by="calibration").compress(linear, seen(x))
    assert torch.equal(ours.dequantize(), linear.weight.half().float())
    torch.testing.assert_close(ours(x), nn.functional.linear(x, ours.dequantize(), ours.bias))


def test_columns_apart_are_counted_and_packed():
    ours = LLMInt8(outliers_by="calibration").compress(layer(), seen(inputs()))
    bias, columns = 96 * 4, len(OUTLIERS)
    scales, numbers = 96 * 4, 2 * columns * 4  # of weight and input, each has them
    assert ours.nbytes() == 96 * (128 - columns) + 96 * columns * 2 + scales + numbers + bias
    packed = ours.pack()
    again = CompressedLinear.unpack(Packed(json.loads(json.dumps(packed.header)), packed.tensors))
    assert torch.equal(again(inputs()), ours(inputs()))


@torch.no_grad()
def test_the_batch_decides_which_channels_stay_apart():
    ours, x = LLMInt8().compress(layer()), inputs()
    calm = x.clone()
    calm[:, OUTLIERS] = 0.5
    assert ours.activation.mask(calm).sum() == 0
    both = torch.cat((calm[:1], x))
    assert ours.activation.mask(both).nonzero()[:, 0].tolist() == list(OUTLIERS)
    assert not torch.equal(ours(both)[:1], ours(calm[:1]))


def test_a_model_with_outliers_loses_what_8_bits_for_all_lose():
    torch.manual_seed(0)
    model = Decoder(DecoderShape(vocab_size=32, d_model=64, n_layers=2, n_heads=4, d_ff=128))
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.2)
    model = inject_outliers(model.eval(), factor=50.0, channels=2)
    ids = torch.randint(32, (4, 24), generator=torch.Generator().manual_seed(1))
    calibration = Calibration([ids])
    found = {
        technique: layer_errors(model, technique.compressed(model, calibration), calibration)
        for technique in (LLMInt8(threshold=0), LLMInt8(), LLMInt8(outliers_by="calibration"))
    }
    plain, *apart = found.values()
    for errors in apart:
        for name in errors:
            if name.endswith(("q_proj", "up_proj")):  # behind norms, where outliers are
                assert errors[name].output_error < plain[name].output_error / 4


def test_a_threshold_is_no_negative_number():
    with pytest.raises(ValueError, match="threshold must be at least 0, got -1"):
        LLMInt8(threshold=-1)
