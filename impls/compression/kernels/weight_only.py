"""Products with weights of 4 or 8 bits and inputs of 16 or 32, on CPU in C++ (`weight_only.cpp`).

    y = x Wᵀ + bias,  W = scale (code - zero),  a scale and a zero for each group of a row's columns

R rows and C columns of W, G groups of a row. float32 or bfloat16 in and out, sums in float32; no
weight is rounded. Results do not depend on the number of threads, which is torch's, nor on how many
rows x has.
"""

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from impls.models import native
from impls.models.native import available, why_unavailable

__all__ = ["DTYPES", "Prepared", "available", "linear", "prepare", "why_not", "why_unavailable"]

SOURCE = Path(__file__).with_name("weight_only.cpp")
DTYPES = {torch.float32: "linear_float32", torch.bfloat16: "linear_bfloat16"}  # of x: functions
STRIP = 32  # rows
UNIT = 8  # columns: groups are made of them
LARGE_PAGE = 2 << 20  # bytes
CENTRES = {4: 8.0, 8: 127.5}  # what is taken from codes and zeros


@dataclass(frozen=True, slots=True)
class Prepared:
    """Codes, scales and zeros in the kernel's order: nothing is lost, and rows are padded to 32.

    They share one stretch of memory.
    """

    codes: Tensor  # uint8; the order is told in weight_only.cpp
    scales: Tensor  # (strips, G, 32) float32, or float16 where both it and zeros are exact in that
    zeros: Tensor  # like scales, less the centre of the codes
    rows: int
    columns: int
    bits: int

    @property
    def nbytes(self) -> int:
        """Bytes of the three tensors."""
        return sum(x.nbytes for x in (self.codes, self.scales, self.zeros))


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("codes", "scales", "zeros", "x", "bias", "out")),
        *((name, ctypes.c_int64) for name in ("M", "R", "C", "G", "bits", "half", "threads")),
    )


def why_not(rows: int, columns: int, groups: int, bits: int) -> str | None:
    """Why the kernel does not know this shape, or None where it does."""
    if bits not in CENTRES:
        return f"codes must have 4 or 8 bits, got {bits}"
    if min(rows, columns, groups) < 1:
        return f"there must be rows, columns and groups, got {rows}, {columns} and {groups}"
    if columns % groups or columns // groups % UNIT:
        return (
            f"groups must be equal and of a multiple of {UNIT} columns, got {columns} columns in "
            f"{groups} groups"
        )
    return None


def prepare(codes: Tensor, scales: Tensor, zeros: Tensor, *, bits: int) -> Prepared:
    """Bring W = scales (codes - zeros) into the order of the kernel, once for all products.

    codes (R, C) uint8 in 0..2^bits-1; scales and zeros (R, G) float32 or what is exact in that,
    each for C / G columns, zeros not necessarily integers.

    Raises:
        ValueError: if dtypes or shapes do not fit (`why_not` knows), a code has more bits, or a
            scale or zero is not finite.
        NativeError: if there is no C++ compiler.
    """
    _check(codes, scales, zeros, bits)
    (R, C), codes = codes.shape, codes.contiguous()
    scales, zeros = scales.float(), zeros.float() - CENTRES[bits]
    exact = all(torch.equal(x.half().float(), x) for x in (scales, zeros))
    scales, zeros = (
        pad(x, (0, 0, 0, -R % STRIP))
        .view(-1, STRIP, x.shape[1])
        .transpose(1, 2)
        .to(torch.float16 if exact else torch.float32)
        for x in (scales, zeros)
    )
    memory = _memory((R + -R % STRIP) * C * bits // 8 + scales.nbytes + zeros.nbytes)
    *both, ordered = memory.split([scales.nbytes, zeros.nbytes, len(memory) - 2 * scales.nbytes])
    both = [
        part.view(x.dtype).view(x.shape).copy_(x)
        for part, x in zip(both, (scales, zeros), strict=True)
    ]
    sizes = (ctypes.c_int64(n) for n in (R, C, bits))
    _library().prepare(
        ctypes.c_void_p(codes.data_ptr()), *sizes, ctypes.c_void_p(ordered.data_ptr())
    )
    return Prepared(ordered, *both, R, C, bits)


def linear(x: Tensor, prepared: Prepared, bias: Tensor | None = None) -> Tensor:
    """The product of x (..., C), float32 or bfloat16, as (..., R) in x's dtype; `bias` (R,).

    What is not finite in x leaves nothing finite in its row of the result.

    Raises:
        ValueError: if dtypes or shapes do not fit.
        NativeError: if there is no C++ compiler.
    """
    R, C = prepared.rows, prepared.columns
    if x.dtype not in DTYPES or x.device.type != "cpu":
        raise ValueError(f"x must be float32 or bfloat16 on the CPU, got {x.dtype} on {x.device}")
    if not x.ndim or x.shape[-1] != C:
        raise ValueError(f"x must be (..., {C}), got {tuple(x.shape)}")
    if bias is not None and bias.shape != (R,):
        raise ValueError(f"bias must be ({R},), got {tuple(bias.shape)}")
    x = x.contiguous()
    bias = None if bias is None else bias.float().contiguous()
    out = x.new_empty(*x.shape[:-1], R)
    problem = _Problem(
        codes=prepared.codes.data_ptr(),
        scales=prepared.scales.data_ptr(),
        zeros=prepared.zeros.data_ptr(),
        x=x.data_ptr(),
        bias=None if bias is None else bias.data_ptr(),
        out=out.data_ptr(),
        M=x.numel() // C,
        R=R,
        C=C,
        G=prepared.scales.shape[1],
        bits=prepared.bits,
        half=prepared.scales.dtype == torch.float16,
        threads=torch.get_num_threads(),
    )
    if getattr(_library(), DTYPES[x.dtype])(ctypes.byref(problem)):
        raise MemoryError(f"no memory to multiply x {tuple(x.shape)} by W ({R}, {C})")
    return out


def _check(codes: Tensor, scales: Tensor, zeros: Tensor, bits: int) -> None:
    if codes.dtype != torch.uint8 or codes.ndim != 2:
        raise ValueError(f"codes must be (R, C) uint8, got {tuple(codes.shape)} {codes.dtype}")
    R, C = codes.shape
    if scales.ndim != 2 or len(scales) != R or scales.shape != zeros.shape:
        raise ValueError(
            f"scales and zeros must be ({R}, G), got {tuple(scales.shape)} and {tuple(zeros.shape)}"
        )
    if reason := why_not(R, C, scales.shape[1], bits):
        raise ValueError(reason)
    if devices := {x.device.type for x in (codes, scales, zeros)} - {"cpu"}:
        raise ValueError(f"codes, scales and zeros must be on the CPU, got {', '.join(devices)}")
    if (largest := int(codes.max())) >> bits:
        raise ValueError(f"codes of {bits} bits must be below {2**bits}, got {largest}")
    for name, x in (("scales", scales), ("zeros", zeros)):
        if not x.isfinite().all():
            raise ValueError(f"{name} must be finite, got {x[~x.isfinite()][0].item()}")


def _memory(n_bytes: int) -> Tensor:
    """Bytes not written to yet; many begin at a large page, and lie in large pages."""
    if n_bytes < LARGE_PAGE:
        return torch.empty(n_bytes, dtype=torch.uint8)
    memory = torch.empty(n_bytes + LARGE_PAGE, dtype=torch.uint8)
    memory = memory[-memory.data_ptr() % LARGE_PAGE :][:n_bytes]
    _library().use_large_pages(ctypes.c_void_p(memory.data_ptr()), ctypes.c_int64(n_bytes))
    return memory


@cache
def _library() -> ctypes.CDLL:
    return native.load(SOURCE)
