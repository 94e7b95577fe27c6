"""Codes of b bits as bytes: each row one little-endian stream of bits, padded to whole bytes."""

import torch
from torch import Tensor
from torch.nn import functional as F


def packed_width(n: int, bits: int) -> int:
    """Bytes that n codes of so many bits take."""
    return -(-n * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes (R, C), integers in 0 .. 2^bits - 1, as bytes (R, ceil(C bits / 8)) uint8.

    Raises:
        ValueError: if a code does not fit.
    """
    codes = codes.to(torch.int32)
    if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= 2**bits):
        raise ValueError(
            f"codes of {bits} bits go from 0 to {2**bits - 1}, "
            f"got {int(codes.min())} to {int(codes.max())}"
        )
    if bits == 8:
        return codes.to(torch.uint8)
    rows, n = codes.shape
    if bits == 4:
        pairs = F.pad(codes.to(torch.uint8), (0, n % 2))
        return pairs[:, ::2] | pairs[:, 1::2] << 4
    bit = (codes[..., None] >> torch.arange(bits, device=codes.device)) & 1
    stream = torch.zeros(rows, 8 * packed_width(n, bits), dtype=torch.int32, device=codes.device)
    stream[:, : n * bits] = bit.flatten(1)
    return _weighted(stream, 8).to(torch.uint8)


def unpack(packed: Tensor, bits: int, n: int) -> Tensor:
    """The n codes a row that `pack` was given, (R, n) uint8."""
    if bits == 8:
        return packed
    if bits == 4:
        both = torch.stack((packed & 15, packed >> 4), dim=-1).flatten(1)
        return both[:, :n]
    bit = (packed[..., None] >> torch.arange(8, device=packed.device, dtype=torch.uint8)) & 1
    if bits == 1:
        return bit.flatten(1)[:, :n]
    return _weighted(bit.flatten(1)[:, : n * bits].to(torch.int32), bits).to(torch.uint8)


def _weighted(bit: Tensor, bits: int) -> Tensor:
    powers = 2 ** torch.arange(bits, device=bit.device, dtype=torch.int32)
    return (bit.unflatten(1, (-1, bits)) * powers).sum(-1, dtype=torch.int32)
