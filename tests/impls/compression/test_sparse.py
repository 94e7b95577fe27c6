"""A sparse weight: the bytes it says, the numbers it was given, damage that is noticed."""

import pytest
import torch

from impls.compression._sparse import SparseWeight
from impls.compression.interface import CompressedLinear, Packed, PackedError, Parts

SIZES = {"float16": 2, "bfloat16": 2, "float32": 4}
every_dtype = pytest.mark.parametrize("dtype", SIZES)


def problem(rows=5, columns=13, share=0.4):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator)
    return weight, torch.rand(rows, columns, generator=generator) < share


@every_dtype
def test_it_holds_the_kept_numbers_in_their_type_and_a_bit_for_each_place(dtype):
    weight, removed = problem()
    stored = SparseWeight(weight, removed, dtype=dtype)
    kept = int((~removed).sum())
    assert stored.nbytes() == 5 * 2 + kept * SIZES[dtype]  # 13 places a row: two bytes
    wanted = torch.where(removed, 0.0, weight.to(getattr(torch, dtype)).float())
    assert torch.equal(stored.dequantize(), wanted)
    assert torch.equal(stored.removed(), removed)


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_all_or_nothing_may_be_kept(share):
    weight, removed = problem(share=share)
    stored = SparseWeight(weight, removed, dtype="float32")
    assert torch.equal(stored.dequantize(), weight * (share == 0))
    assert len(stored.values) == weight.numel() * (share == 0)


def test_half_of_the_weights_in_float16_are_nine_bits_a_parameter():
    """As many as two-bit places would make it under 2:4: 2 (16 + 2) / 4."""
    weight = torch.randn(4, 16)
    removed = torch.arange(16).expand(4, -1) % 4 < 2
    assert 8 * SparseWeight(weight, removed).nbytes() == 9 * weight.numel()


def test_what_it_was_given_at_removed_places_is_not_read():
    weight, removed = problem()
    stored = SparseWeight(weight.masked_fill(removed, torch.nan), removed)
    assert stored.dequantize().isfinite().all()


def test_a_number_too_large_for_its_type_is_refused():
    weight, removed = problem()
    weight[1, 1], removed[1, 1] = 7e4, False
    with pytest.raises(ValueError, match=r"a weight of 7e\+04 does not fit float16: set value_dt"):
        SparseWeight(weight, removed)
    assert SparseWeight(weight, removed, dtype="float32").dequantize()[1, 1] == 7e4


def test_a_map_that_does_not_fit_its_numbers_is_noticed():
    packed = CompressedLinear(Parts(SparseWeight(*problem()))).pack()
    tensors = {name: tensor.clone() for name, tensor in packed.tensors.items()}
    tensors["weight.kept"][2, 0] ^= 1
    with pytest.raises(PackedError, match=r"'kept' has .* places for"):
        CompressedLinear.unpack(Packed(packed.header, tensors))
