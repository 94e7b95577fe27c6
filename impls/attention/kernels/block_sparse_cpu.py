"""Block-sparse attention on CPU, forward and backward, in C++ (`block_sparse.cpp`).

    s = scale q kᵀ over the visible pairs,  lse = log Σ exp s,  out = exp(s - lse) v

B batch, T tokens (Tq queries, Tk keys), H query heads, G key/value heads, d and dv head widths.
float32 or bfloat16 in and out, sums in float32; a row that sees nothing has out 0, lse -inf and
gradients 0. Results do not depend on the number of threads, which is torch's.
"""

import ctypes
import math
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from impls.models import native
from impls.models.native import available, why_unavailable

__all__ = ["BLOCK", "DTYPES", "Layout", "available", "backward", "forward", "why_unavailable"]

SOURCE = Path(__file__).with_name("block_sparse.cpp")
BLOCK = 64  # the only side of a block the kernel knows
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class Layout(Protocol):
    """Which key blocks each query block sees; for all heads alike (L = 1) or each its own (H)."""

    block: int  # side of a block, 64
    rows: Tensor  # (L * nq + 1,) int32: where the entries of each block of queries begin
    cols: Tensor  # (entries,) int32: key blocks, ascending
    masks_of: Tensor  # (entries,) int32: -1, every pair is visible; else which mask
    masks: Tensor  # (masks, block, block) bool: [query, key] within the block


class _Tensor(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("strides", ctypes.c_int64 * 3))


class _Layout(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("rows", "cols", "masks_of", "masks")),
        ("heads", ctypes.c_int64),
    )


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, _Tensor) for name in ("q", "k", "v", "out", "dout", "dq", "dk", "dv")),
        ("lse", ctypes.c_void_p),
        ("keep", ctypes.c_void_p),
        ("layout", _Layout),
        *((n, ctypes.c_int64) for n in ("B", "H", "G", "Tq", "Tk", "d", "dv_width", "threads")),
        ("scale", ctypes.c_float),
    )


def forward(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, scale: float, keep: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attention of q (B, H, Tq, d) over k (B, G, Tk, d) and v (B, G, Tk, dv).

    `keep` (B, Tk) bool marks the keys that are no padding.

    Returns:
        out (B, H, Tq, dv) in q's dtype and lse (B, H, Tq) float32, the log of each row's sum.

    Raises:
        ValueError: if dtypes, shapes or the layout do not fit.
        NativeError: if there is no C++ compiler.
    """
    _check(q, k, v, layout, scale, keep)
    out = q.new_empty(*q.shape[:3], v.shape[3])
    lse = q.new_empty(q.shape[:3], dtype=torch.float32)
    _call("forward", q, k, v, layout, scale, keep, out=out, lse=lse)
    return out, lse


def backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    layout: Layout,
    *,
    scale: float,
    keep: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients dq, dk, dv of `forward`, shaped like q, k, v; `out` and `lse` are what it gave.

    Raises:
        ValueError: if dtypes, shapes or the layout do not fit.
        NativeError: if there is no C++ compiler.
    """
    _check(q, k, v, layout, scale, keep)
    expected = (*q.shape[:3], v.shape[3])
    for name, x, shape in (("grad_out", grad_out, expected), ("out", out, expected)):
        if x.shape != shape or x.dtype != q.dtype:
            raise ValueError(f"{name} must be {shape} {q.dtype}, got {tuple(x.shape)} {x.dtype}")
    if lse.shape != q.shape[:3] or lse.dtype != torch.float32:
        raise ValueError(f"lse must be {tuple(q.shape[:3])} float32, got {tuple(lse.shape)}")
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v))
    given = {"dout": grad_out, "out": out, "lse": lse.contiguous()}
    _call("backward", q, k, v, layout, scale, keep, **given, dq=dq, dk=dk, dv=dv)
    return dq, dk, dv


def _check(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, keep: Tensor | None
) -> None:
    if q.dtype not in DTYPES or {q.dtype, k.dtype, v.dtype} != {q.dtype}:
        raise ValueError(
            f"q, k and v must all be float32 or all bfloat16, got {q.dtype}, {k.dtype}, {v.dtype}"
        )
    if devices := {x.device.type for x in (q, k, v)} - {"cpu"}:
        raise ValueError(f"q, k and v must be on the CPU, got {', '.join(devices)}")
    B, H, Tq, d = q.shape
    G, Tk, dv = v.shape[1:]
    if k.shape != (B, G, Tk, d) or v.shape != (B, G, Tk, dv) or G == 0 or H % G:
        raise ValueError(
            "q must be (B, H, Tq, d), k (B, G, Tk, d), v (B, G, Tk, dv) with G dividing H, "
            f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be positive and finite, got {scale}: put its sign into q")
    if keep is not None and (keep.shape != (B, Tk) or keep.dtype != torch.bool):
        raise ValueError(f"keep must be ({B}, {Tk}) bool, got {tuple(keep.shape)} {keep.dtype}")
    _check_layout(layout, H, -(-Tq // BLOCK), -(-Tk // BLOCK))


def _check_layout(layout: Layout, H: int, nq: int, nk: int) -> None:
    """What would make the kernel read beyond an array."""
    if layout.block != BLOCK:
        raise ValueError(f"blocks must have a side of {BLOCK}, got {layout.block}")
    # As numpy arrays: the same checks on tensors take longer than a small kernel.
    rows, cols, masks_of = (x.numpy() for x in (layout.rows, layout.cols, layout.masks_of))
    if any(x.dtype != np.int32 for x in (rows, cols, masks_of)):
        raise ValueError(
            f"rows, cols and masks_of must be int32, got {rows.dtype}, {cols.dtype}, "
            f"{masks_of.dtype}"
        )
    if len(rows) - 1 not in (nq, H * nq):
        raise ValueError(
            f"the layout has {len(rows) - 1} rows of blocks; {nq} blocks of queries and {H} heads "
            f"need {nq} or {H * nq}"
        )
    if layout.masks.dtype != torch.bool or layout.masks.shape[1:] != (BLOCK, BLOCK):
        raise ValueError(
            f"masks must be (masks, {BLOCK}, {BLOCK}) bool, got {tuple(layout.masks.shape)} "
            f"{layout.masks.dtype}"
        )
    if rows[0] != 0 or (rows[1:] < rows[:-1]).any() or not rows[-1] == len(cols) == len(masks_of):
        raise ValueError(
            f"rows must rise from 0 to the number of entries, got {rows[0]} to {rows[-1]} for "
            f"{len(cols)} cols and {len(masks_of)} masks_of"
        )
    for name, x, low, high in (
        ("cols", cols, 0, nk),
        ("masks_of", masks_of, -1, len(layout.masks)),
    ):
        if len(x) and not low <= x.min() <= x.max() < high:
            raise ValueError(f"{name} must be in [{low}, {high}), got {x.min()} to {x.max()}")


@cache
def _library() -> ctypes.CDLL:
    return native.load(SOURCE)


def _call(
    name: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    scale: float,
    keep: Tensor | None,
    **others: Tensor,
) -> None:
    """Run one of the kernel's functions; `others` are fields of the problem."""
    tensors = {"q": q, "k": k, "v": v, **others}
    lse = tensors.pop("lse")
    tensors = {field: x if x.stride(-1) == 1 else x.contiguous() for field, x in tensors.items()}
    keep = None if keep is None else keep.contiguous()
    blocks = [x.contiguous() for x in (layout.rows, layout.cols, layout.masks_of, layout.masks)]
    (B, H, Tq, d), (G, Tk, dv) = q.shape, v.shape[1:]
    heads = 1 if len(layout.rows) - 1 == -(-Tq // BLOCK) else H
    problem = _Problem(
        **{field: _Tensor(x.data_ptr(), x.stride()[:3]) for field, x in tensors.items()},
        lse=lse.data_ptr(),
        keep=None if keep is None else keep.data_ptr(),
        layout=_Layout(*(x.data_ptr() for x in blocks), heads),
        B=B,
        H=H,
        G=G,
        Tq=Tq,
        Tk=Tk,
        d=d,
        dv_width=dv,
        threads=torch.get_num_threads(),
        scale=scale,
    )
    if _library()[f"{name}_{DTYPES[q.dtype]}"](ctypes.byref(problem)):
        raise MemoryError(f"no memory to pack attention of q {tuple(q.shape)}, k {tuple(k.shape)}")
