"""SparseGPT against llm-compressor's masks and weights, and what must equal magnitude."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from impls.compression import GPTQ, Magnitude, SparseGPT
from impls.compression._grid import Grid
from impls.compression._hessian import damped
from impls.compression.interface import CompressedLinear, LayerStatistics, PackedError

GOLDEN = Path(__file__).parent / "golden"
R, C = 64, 128


def golden_layer():
    given = load_file(GOLDEN / "gptq.safetensors")
    linear = nn.Linear(C, R, bias=False)
    linear.weight = nn.Parameter(given["weight"])
    return linear, LayerStatistics(512, hessian=given["hessian"].double())


@pytest.mark.parametrize(("pattern", "block"), [("", 128), ("", 32), ("2:4", 128)])
def test_masks_weights_and_loss_are_those_of_llm_compressor(pattern, block):
    """It removes what is at most the threshold, which is one weight more of each block."""
    name = f"sparsegpt, pattern {pattern or 'none'}, block {block}"
    theirs = load_file(GOLDEN / "pruned.safetensors")[name]
    told = json.loads((GOLDEN / "pruned.json").read_text(encoding="utf-8"))["losses"][name]
    linear, statistics = golden_layer()
    one_more = 0 if pattern else 1 / (R * block)
    technique = SparseGPT(
        pattern=pattern, block=block, sparsity=0.5 + one_more, value_dtype="float32"
    )
    small = technique.compress(linear, statistics)
    assert torch.equal(small.dequantize() == 0, theirs == 0)
    eps = torch.finfo(torch.float32).eps
    allowed = C * eps * float(theirs.abs().max())  # theirs adds up to C terms in float32
    torch.testing.assert_close(small.dequantize(), theirs, rtol=0, atol=allowed)
    lost = (linear.weight.detach() - small.dequantize()).double()
    loss = ((lost @ damped(statistics.hessian).matrix) * lost).sum() / 2
    assert float(loss) == pytest.approx(told, rel=C * eps)


@pytest.mark.parametrize("block", [128, 32, 48, 5])
@pytest.mark.parametrize("sparsity", [0.5, 0.3])
def test_every_block_loses_its_share_and_the_layer_exactly(block, sparsity):
    removed = SparseGPT(block=block, sparsity=sparsity).compress(*golden_layer()).weight.removed()
    for part in removed.split(block, dim=1):
        assert abs(int(part.sum()) - sparsity * part.numel()) <= 1
    assert int(removed.sum()) == round(sparsity * R * C)


@pytest.mark.parametrize("options", [{}, {"pattern": "2:4"}])
def test_where_inputs_do_not_act_together_the_largest_stay_as_they_are(options):
    linear, _ = golden_layer()
    apart = LayerStatistics(1, hessian=2 * torch.eye(C, dtype=torch.float64))
    by_size = Magnitude(**options).compress(linear)
    found = SparseGPT(**options).compress(linear, apart)
    assert torch.equal(found.dequantize(), by_size.dequantize())


@pytest.mark.parametrize("block", [1, 6, 128])
def test_under_a_pattern_blocks_change_nothing_but_the_last_bits(block):
    linear, statistics = golden_layer()
    whole = SparseGPT(pattern="2:4", value_dtype="float32").compress(linear, statistics)
    found = SparseGPT(pattern="2:4", block=block, value_dtype="float32")
    found = found.compress(linear, statistics)
    torch.testing.assert_close(found.dequantize(), whole.dequantize(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_with_nothing_removed_rounding_in_the_pass_is_gptq(bits):
    linear, statistics = golden_layer()
    small = SparseGPT(sparsity=0.0, value_bits=bits).compress(linear, statistics)
    in_float64 = linear.weight.detach().double()
    rounded = GPTQ(bits=bits, granularity="channel").parts(in_float64, statistics).weight
    assert torch.equal(small.dequantize(), rounded.dequantize())


@pytest.mark.parametrize("pattern", ["", "2:4"])
def test_rounding_in_the_pass_errs_less_than_rounding_what_was_pruned(pattern):
    linear, statistics = golden_layer()
    matrix, weight = damped(statistics.hessian).matrix, linear.weight.detach().double()
    joint = SparseGPT(pattern=pattern, value_bits=3).compress(linear, statistics)
    pruned = SparseGPT(pattern=pattern, value_dtype="float32").compress(linear, statistics)
    after = Grid(bits=3, granularity="channel").fit(pruned.dequantize())
    after = after.rounded(pruned.dequantize()).masked_fill(pruned.weight.removed(), 0.0)
    errors = [
        float((lost @ matrix * lost).sum())
        for lost in (weight - joint.dequantize().double(), weight - after.double())
    ]
    assert errors[0] < errors[1]


def test_half_of_the_weights_in_four_bits_are_about_three_bits_a_parameter():
    """A bit for the place, half of four bits, and 20 bits a row for its scale and zero point."""
    small = SparseGPT(pattern="2:4", value_bits=4).compress(*golden_layer())
    assert small.bits_per_parameter() == 1 + 4 / 2 + 20 / C
    again = CompressedLinear.unpack(small.pack())
    assert torch.equal(again.dequantize(), small.dequantize())
    assert (again.dequantize().view(R, -1, 4) == 0).sum(-1).min() >= 2


def test_a_map_that_does_not_fit_its_codes_is_noticed():
    packed = SparseGPT(value_bits=4).compress(*golden_layer()).pack()
    packed.tensors["weight.kept"][3, 1] ^= 4
    with pytest.raises(PackedError, match="'kept' has"):
        CompressedLinear.unpack(packed)


@pytest.mark.parametrize("bits", [0, 1, 9])
def test_bits_out_of_bounds_are_refused(bits):
    with pytest.raises(ValueError, match=f"value_bits must be from 2 to 8, or None, got {bits}"):
        SparseGPT(value_bits=bits)


def test_a_block_has_a_column():
    with pytest.raises(ValueError, match="block must be at least 1, got 0"):
        SparseGPT(block=0)
