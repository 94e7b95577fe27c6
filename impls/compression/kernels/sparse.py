"""Products with weights of which only some are kept, on CPU in C++ (`sparse.cpp`).

    y = x Wᵀ + bias,  W of kept numbers and a bit for each place

R rows and C columns of W, K numbers kept. Sums are in float32; no weight is rounded. Results do not
depend on the number of threads, which is torch's.
"""

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from impls.models import native
from impls.models.native import available, why_unavailable

__all__ = ["FEW", "available", "expand", "linear", "why_unavailable"]

SOURCE = Path(__file__).with_name("sparse.cpp")
DTYPES = ("float16", "bfloat16", "float32")  # of values
FEW = 16  # rows of x up to which `linear` takes less time than a product with what `expand` gives


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("kept", "values", "x", "bias", "out")),
        *((name, ctypes.c_int64) for name in ("M", "R", "C", "K", "threads")),
    )


def linear(
    x: Tensor, kept: Tensor, values: Tensor, columns: int, bias: Tensor | None = None
) -> Tensor:
    """The product of x (..., C), float32 or bfloat16, as (..., R) in x's dtype.

    Args:
        x: on the CPU.
        kept: (R, ceil(C / 8)) uint8, the first column in the lowest bit, 0 beyond C.
        values: (K,) float16, bfloat16 or float32.
        columns: C.
        bias: (R,), or None.

    Raises:
        ValueError: if dtypes or shapes do not fit, or the map has other than K ones.
        NativeError: if there is no C++ compiler.
    """
    rows = len(kept)
    if x.dtype not in {torch.float32, torch.bfloat16} or x.device.type != "cpu":
        raise ValueError(f"x must be float32 or bfloat16 on the CPU, got {x.dtype} on {x.device}")
    if x.shape[-1] != columns or (bias is not None and bias.shape != (rows,)):
        raise ValueError(f"x must be (..., {columns}) and bias ({rows},), got {tuple(x.shape)}")
    flat = x.reshape(-1, columns).float().contiguous()
    bias = None if bias is None else bias.float().contiguous()
    out = flat.new_empty(len(flat), rows)
    _call("linear", kept, values, columns, x=flat, bias=bias, out=out)
    return out.to(x.dtype).view(*x.shape[:-1], rows)


def expand(kept: Tensor, values: Tensor, columns: int) -> Tensor:
    """The weight (R, C) float32 of a map and its numbers; they and errors as of `linear`."""
    out = torch.empty(len(kept), columns)
    _call("expand", kept, values, columns, out=out)
    return out


def _call(name: str, kept: Tensor, values: Tensor, columns: int, **tensors: Tensor | None) -> None:
    width = -(-columns // 8)
    dtype = str(values.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise ValueError(f"values must be {', '.join(DTYPES)}, got {dtype}")
    if kept.dtype != torch.uint8 or kept.shape[1:] != (width,):
        raise ValueError(f"the map must be (R, {width}) uint8, got {tuple(kept.shape)}")
    kept, values = kept.contiguous(), values.contiguous()
    x = tensors.get("x")
    problem = _Problem(
        kept=kept.data_ptr(),
        values=values.data_ptr(),
        **{key: None if tensor is None else tensor.data_ptr() for key, tensor in tensors.items()},
        M=0 if x is None else len(x),
        R=len(kept),
        C=columns,
        K=len(values),
        threads=torch.get_num_threads(),
    )
    failed = _library()[f"{name}_{dtype}"](ctypes.byref(problem))
    if failed == 1:
        raise ValueError(f"the map has more or fewer places than the {len(values)} values")
    if failed:
        raise MemoryError(f"no memory to multiply by a sparse weight ({len(kept)}, {columns})")


@cache
def _library() -> ctypes.CDLL:
    return native.load(SOURCE)
