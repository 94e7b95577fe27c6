"""Codes of a few bits in bytes: nothing is lost, nothing is wasted but the end of a row."""

import numpy as np
import pytest
import torch

from impls.compression._packing import pack, packed_width, unpack

WIDTHS = (1, 7, 8, 33, 64)
every_width = pytest.mark.parametrize("bits", range(1, 9))


def codes(bits, n):
    generator = torch.Generator().manual_seed(bits * n)
    drawn = torch.randint(2**bits, (3, n), generator=generator)
    drawn[0], drawn[1] = 0, 2**bits - 1
    return drawn


@every_width
def test_codes_come_back_and_bytes_are_those_of_the_formula(bits):
    for n in WIDTHS:
        packed = pack(codes(bits, n), bits)
        assert packed.dtype == torch.uint8
        assert packed.shape == (3, packed_width(n, bits)) == (3, (n * bits + 7) // 8)
        assert torch.equal(unpack(packed, bits, n), codes(bits, n).to(torch.uint8))


@every_width
def test_a_row_is_one_little_endian_stream_of_bits(bits):
    for n in WIDTHS:
        stream = (codes(bits, n).numpy()[..., None] >> np.arange(bits)) & 1
        expected = np.packbits(stream.reshape(3, -1).astype(bool), axis=1, bitorder="little")
        np.testing.assert_array_equal(pack(codes(bits, n), bits).numpy(), expected)


@pytest.mark.parametrize("bad", [-1, 8])
def test_a_code_that_does_not_fit_is_refused(bad):
    with pytest.raises(ValueError, match=rf"codes of 3 bits go from 0 to 7, got .*{bad}"):
        pack(torch.tensor([[0, 7, bad]]), 3)
