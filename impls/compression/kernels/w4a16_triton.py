"""Products with weights of 4 bits and inputs of 16, in Triton, for few rows of x.

    y = x Wᵀ + bias = Σ over groups of s (Σ x q - z Σ x),    W = s (q - z)

R rows and C columns of W, G groups of a row, M rows of x; q codes, s scales, z zeros. A code is
written into the low bits of 128 (bfloat16) or 1024 (float16), where neighbours are 1 apart: one
instruction makes two numbers out of codes, and what was added goes into the zero. No weight is
rounded. A product with ones sums x, in the same registers as the product with the codes. The
columns are split between programs, and a second kernel adds their shares in a fixed order: results
repeat bit for bit.

A unit is 64 columns: 16 words of 16 bits a row; word i holds columns i, 16+i, 32+i and 48+i from
its lowest bits on. A strip is 128 rows, whose words of a unit lie together.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["DTYPES", "Prepared", "linear", "prepare", "why_not"]

DTYPES = (torch.bfloat16, torch.float16)  # of x
UNIT, STRIP, WORDS = 64, 128, 16  # columns, rows, words of a unit
BUSY = 4  # programs for each multiprocessor, at least, where the columns are enough
CONFIGS = ((4, 3), (4, 4), (4, 5), (8, 3), (8, 4))  # warps and stages

# Two neighbouring words to four pairs of codes: masked, and joined with the bits of 128 or 1024.
DECODE = """{{
.reg .b32 t;
lop3.b32 $0, $4, 0x000f000f, 0x{bits:04x}{bits:04x}, 0xea;
shr.u32 t, $4, 4;
lop3.b32 $1, t, 0x000f000f, 0x{bits:04x}{bits:04x}, 0xea;
shr.u32 t, $4, 8;
lop3.b32 $2, t, 0x000f000f, 0x{bits:04x}{bits:04x}, 0xea;
shr.u32 t, $4, 12;
lop3.b32 $3, t, 0x000f000f, 0x{bits:04x}{bits:04x}, 0xea;
}}"""
BFLOAT_BITS, HALF_BITS = tl.constexpr(0x4300), tl.constexpr(0x6400)  # of 128 and of 1024
DECODE_BFLOAT = tl.constexpr(DECODE.format(bits=BFLOAT_BITS.value))
DECODE_HALF = tl.constexpr(DECODE.format(bits=HALF_BITS.value))


@triton.jit
def _codes(words, kind: tl.constexpr):
    """The codes of the four quarters of a unit, more by 128 or 1024, and that number."""
    is_bfloat: tl.constexpr = kind == tl.bfloat16
    if INTERPRETED:  # the interpreter knows no assembler
        bits: tl.constexpr = BFLOAT_BITS if is_bfloat else HALF_BITS
        a, b = (words & 15) | bits, ((words >> 4) & 15) | bits
        c, d = ((words >> 8) & 15) | bits, ((words >> 12) & 15) | bits
    else:
        text: tl.constexpr = DECODE_BFLOAT if is_bfloat else DECODE_HALF
        a, b, c, d = tl.inline_asm_elementwise(
            text, "=r,=r,=r,=r,r", [words], is_pure=True, pack=2,
            dtype=(tl.uint16, tl.uint16, tl.uint16, tl.uint16),
        )  # fmt: skip
    quarters = (
        a.to(tl.uint16).to(kind, bitcast=True), b.to(tl.uint16).to(kind, bitcast=True),
        c.to(tl.uint16).to(kind, bitcast=True), d.to(tl.uint16).to(kind, bitcast=True),
    )  # fmt: skip
    return quarters, 128.0 if is_bfloat else 1024.0


INTERPRETED = tl.constexpr(not isinstance(_codes, triton.JITFunction))


@triton.jit
def _dot(a, b, start):
    if INTERPRETED:  # the interpreter would multiply the bit patterns of bfloat16
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, start)


@triton.autotune(
    configs=[
        triton.Config({}, num_warps=warps, num_stages=stages)
        for warps, stages in (CONFIGS[:1] if INTERPRETED.value else CONFIGS)
    ],
    key=["R", "units", "units_each", "GROUP_UNITS", "BLOCK_M"],
)
@triton.jit
def product(
    X, Words, Scales, Zeros, Shares, M, R, x_m, units, units_each,
    GROUP_UNITS: tl.constexpr, UNITS: tl.constexpr, STRIP: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Shares (splits, M, R) float32 of one strip, some units and some rows of x."""
    strip, split, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first = split * units_each
    last = tl.minimum(first + units_each, units)
    r, j = tl.arange(0, STRIP), tl.arange(0, 16 * UNITS)
    m = block * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = (m < M)[None, :]
    column = first * 64 + j // 16 * 64 + j % 16
    x_at = X + column[:, None] + m.to(tl.int64)[None, :] * x_m
    word = (j // 16 * STRIP * 16 + j % 16)[None, :] + r[:, None] * 16
    words_at = Words + (strip.to(tl.int64) * units + first) * STRIP * 16 + word
    of_strip = strip * (units // GROUP_UNITS) * STRIP + r
    group = first // GROUP_UNITS
    scale = tl.load(Scales + of_strip + group * STRIP)
    zero = tl.load(Zeros + of_strip + group * STRIP)
    ones = tl.full((STRIP, 16 * UNITS), 1.0, X.dtype.element_ty)
    total = tl.zeros((STRIP, BLOCK_M), tl.float32)
    for unit in tl.range(first, last, UNITS):
        group = tl.minimum(unit + UNITS, last - 1) // GROUP_UNITS  # asked for ahead of its use
        next_scale = tl.load(Scales + of_strip + group * STRIP)
        next_zero = tl.load(Zeros + of_strip + group * STRIP)
        words = tl.load(words_at, eviction_policy="evict_first")
        quarters, added = _codes(words, X.dtype.element_ty)
        products = tl.zeros((STRIP, BLOCK_M), tl.float32)
        sums = tl.zeros((STRIP, BLOCK_M), tl.float32)
        for quarter in tl.static_range(4):
            x = tl.load(x_at + 16 * quarter, mask=inside, other=0.0)
            products = _dot(quarters[quarter], x, products)
            sums = _dot(ones, x, sums)
        centre = (zero.to(tl.float32) + added)[:, None]
        total += scale.to(tl.float32)[:, None] * (products - centre * sums)
        words_at += UNITS * STRIP * 16
        x_at += UNITS * 64
        scale, zero = next_scale, next_zero
    row = strip * STRIP + r
    out = Shares + (split.to(tl.int64) * M + m)[None, :] * R + row[:, None]
    tl.store(out, total, mask=(row < R)[:, None] & inside)


@triton.jit
def combine(Shares, Bias, Out, M, R, splits, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr):
    """Out (M, R): the sum of the shares, and the bias."""
    r = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m = tl.program_id(1).to(tl.int64)
    inside = r < R
    total = tl.zeros((BLOCK,), tl.float32)
    for split in tl.range(0, splits):
        total += tl.load(Shares + (split * M + m) * R + r, mask=inside, other=0.0)
    if HAS_BIAS:
        total += tl.load(Bias + r, mask=inside, other=0.0).to(tl.float32)
    tl.store(Out + m * R + r, total.to(Out.dtype.element_ty), mask=inside)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Codes, scales and zeros in the kernel's order; rows are padded to 128."""

    words: Tensor  # (strips, units, 128, 16) uint16
    scales: Tensor  # (strips, G, 128) float16 where that is exact of both, else float32
    zeros: Tensor  # like scales
    rows: int
    columns: int

    @property
    def nbytes(self) -> int:
        """Bytes of the three tensors."""
        return sum(x.nbytes for x in (self.words, self.scales, self.zeros))


def why_not(rows: int, columns: int, groups: int) -> str | None:
    """Why the kernel does not know this shape, or None where it does."""
    if min(rows, columns, groups) < 1:
        return f"there must be rows, columns and groups, got {rows}, {columns} and {groups}"
    if columns % groups or columns // groups % UNIT:
        return (
            f"groups must be equal and of a multiple of {UNIT} columns, got {columns} columns in "
            f"{groups} groups"
        )
    return None


def prepare(codes: Tensor, scales: Tensor, zeros: Tensor) -> Prepared:
    """Bring W = scales (codes - zeros) into the order of the kernel, once for all products.

    codes (R, C) uint8 in 0..15; scales and zeros (R, G) float32 or what is exact in that, zeros not
    necessarily integers.

    Raises:
        ValueError: if dtypes or shapes do not fit (`why_not` knows) or a code has more bits.
    """
    if codes.dtype != torch.uint8 or codes.ndim != 2 or int(codes.max()) > 15:
        raise ValueError(f"codes must be (R, C) uint8 below 16, got {codes.dtype} {codes.shape}")
    R, C = codes.shape
    if scales.ndim != 2 or len(scales) != R or scales.shape != zeros.shape:
        raise ValueError(
            f"scales and zeros must be ({R}, G), got {tuple(scales.shape)} and {tuple(zeros.shape)}"
        )
    if reason := why_not(R, C, scales.shape[1]):
        raise ValueError(reason)
    quarters = pad(codes, (0, 0, 0, -R % STRIP)).view(-1, STRIP, C // UNIT, 4, WORDS).int()
    words = sum(quarters[..., i, :] << 4 * i for i in range(4))
    both = [x.float() for x in (scales, zeros)]
    exact = all(torch.equal(x.half().float(), x) for x in both)
    dtype = torch.float16 if exact else torch.float32
    per_strip = [
        pad(x, (0, 0, 0, -R % STRIP)).view(-1, STRIP, x.shape[1]).mT.to(dtype).contiguous()
        for x in both
    ]
    in_order = words.transpose(1, 2).contiguous().to(torch.int16).view(torch.uint16)
    return Prepared(in_order, *per_strip, R, C)


def linear(
    x: Tensor, prepared: Prepared, bias: Tensor | None = None, *, splits: int | None = None
) -> Tensor:
    """The product of x (..., C), bfloat16 or float16, as (..., R) in x's dtype; `bias` (R,).

    `splits` is among how many programs columns are divided, at most; None: enough to fill the GPU.

    Raises:
        ValueError: if dtypes or shapes do not fit.
    """
    R, C, G = prepared.rows, prepared.columns, prepared.scales.shape[1]
    if x.dtype not in DTYPES or not x.ndim or x.shape[-1] != C:
        raise ValueError(f"x must be (..., {C}) bfloat16 or float16, got {x.dtype} {x.shape}")
    if bias is not None and bias.shape != (R,):
        raise ValueError(f"bias must be ({R},), got {tuple(bias.shape)}")
    flat = x.reshape(-1, C).contiguous()
    M, units, strips = len(flat), C // UNIT, len(prepared.words)
    out = flat.new_empty(M, R)
    if not M:
        return out.view(*x.shape[:-1], R)
    at_once = next(n for n in (4, 2, 1) if units // G % n == 0)
    block_m = max(16, min(64, triton.next_power_of_2(M)))
    blocks = triton.cdiv(M, block_m)
    if splits is None:
        device = torch.cuda.get_device_properties(x.device)
        splits = triton.cdiv(BUSY * device.multi_processor_count, strips * blocks)
    units_each = triton.cdiv(units, splits * at_once) * at_once
    splits = triton.cdiv(units, units_each)
    shares = torch.empty(splits, M, R, dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        product[(strips, splits, blocks)](
            flat, prepared.words, prepared.scales, prepared.zeros, shares, M, R, C, units,
            units_each, GROUP_UNITS=units // G, UNITS=at_once, STRIP=STRIP, BLOCK_M=block_m,
            enable_fp_fusion=True,
        )  # fmt: skip
        combine[(triton.cdiv(R, 256), M)](
            shares, bias, out, M, R, splits, HAS_BIAS=bias is not None, BLOCK=256,
            enable_fp_fusion=True,
        )  # fmt: skip
    return out.view(*x.shape[:-1], R)
