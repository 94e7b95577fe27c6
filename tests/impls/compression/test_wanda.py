"""Wanda against llm-compressor's, OBD's order and magnitude's."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from impls.compression import OBD, Magnitude, Wanda
from impls.compression.interface import LayerStatistics

GOLDEN = Path(__file__).parent / "golden"


def golden_layer():
    given = load_file(GOLDEN / "gptq.safetensors")
    linear = nn.Linear(*reversed(given["weight"].shape), bias=False)
    linear.weight = nn.Parameter(given["weight"])
    return linear, LayerStatistics(512, squares=given["hessian"].double().diagonal() / 2)


@pytest.mark.parametrize("pattern", ["", "2:4"])
def test_it_leaves_what_llm_compressor_leaves_bit_for_bit(pattern):
    theirs = load_file(GOLDEN / "pruned.safetensors")[f"wanda, pattern {pattern or 'none'}"]
    small = Wanda(pattern=pattern, value_dtype="float32").compress(*golden_layer())
    assert torch.equal(small.dequantize(), theirs)


def test_a_row_loses_what_the_hessian_s_diagonal_would_take():
    linear, statistics = golden_layer()
    by_diagonal = OBD(scope="row").compress(linear, statistics)
    assert torch.equal(Wanda().compress(linear, statistics).dequantize(), by_diagonal.dequantize())


@pytest.mark.parametrize("options", [{}, {"pattern": "2:4"}, {"scope": "layer"}])
def test_where_inputs_are_alike_it_is_magnitude(options):
    linear, statistics = golden_layer()
    alike = LayerStatistics(512, squares=torch.full_like(statistics.squares, 2.0))
    by_size = Magnitude(**{"scope": "row", **options}).compress(linear)
    assert torch.equal(Wanda(**options).compress(linear, alike).dequantize(), by_size.dequantize())


def test_a_small_weight_of_a_loud_input_stays():
    linear = nn.Linear(2, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2.0]]))
    statistics = LayerStatistics(1, squares=torch.tensor([9.0, 1.0], dtype=torch.float64))
    assert Wanda().compress(linear, statistics).dequantize().tolist() == [[1, 0]]
