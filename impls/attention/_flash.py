"""Which implementation of exact attention with memory linear in the length runs a call."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from impls.attention import _tiles
from impls.attention._blocks import Everything, block_attention, layout
from impls.attention.kernels.block_sparse_cpu import BLOCK

if TYPE_CHECKING:  # named for the digest of this code; imported only where a GPU needs it
    from impls.attention.kernels import flash_launch  # noqa: F401

HAS_TRITON = find_spec("triton") is not None

# "triton" is compiled for GPUs, "blocks" C++ for CPUs, "tiles" plain torch; "auto" takes the one
# best at the call: float32 has no tensor cores in Triton, so cuBLAS under the tiles beats it.
Engine = Literal["auto", "triton", "blocks", "tiles"]

AUTO = {"cuda": (torch.bfloat16, torch.float16), "cpu": (torch.bfloat16, torch.float32)}


def chosen(engine: Engine, q: Tensor, scale: float, bias: Tensor | None) -> Engine:
    """The engine that runs a call; a bias, a scale of 0 or less and float64 go to the tiles.

    Raises:
        ValueError: if Triton is asked for and not installed.
    """
    if engine == "triton" and not HAS_TRITON:
        raise ValueError("engine 'triton' needs the package triton: pip install 'llmatrix[gpu]'")
    if bias is not None or scale <= 0 or q.dtype == torch.float64:
        return "tiles"
    if engine != "auto":
        return engine
    if q.dtype not in AUTO.get(q.device.type, ()):
        return "tiles"
    if q.is_cuda:
        return "triton" if HAS_TRITON else "tiles"
    return "blocks" if q.shape[2] >= BLOCK else "tiles"  # a few queries would not fill a block


def _triton() -> ModuleType:
    return import_module("impls.attention.kernels.flash_launch")


def attend(
    engine: Engine,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    offset: int,
    scale: float,
    keep: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Output (B, H, Tq, dv); the arguments are those of `AttentionKernel.attend`, all resolved."""
    k, v, engine = k.to(q.dtype), v.to(q.dtype), chosen(engine, q, scale, bias)
    if engine == "triton":
        return _triton().attend(q, k, v, causal=causal, offset=offset, scale=scale, keep=keep)[0]
    if engine == "blocks" and q.shape[2] and k.shape[2]:
        dense = layout(Everything(), q.shape[2], k.shape[2], causal=causal, offset=offset)
        return block_attention(q, k, v, dense, scale=scale, keep=keep)
    return _tiles.attend(
        q, k, v, causal=causal, offset=offset, scale=scale, keep=keep, bias=bias
    )[0]  # fmt: skip


def attend_sequences(
    engine: Engine,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds: Sequence[Sequence[int]],
    *,
    causal: bool,
    scale: float,
    keep: Tensor | None = None,
) -> Tensor:
    """Output (B, H, Tq, dv) of n sequences, one a batch row, or side by side in one row.

    `bounds` has for each its first query and last + 1, the same of its keys, and its causal
    offset, all in indices of q and k; every query stands in one sequence.
    """
    if chosen(engine, q, scale, None) == "triton":
        k, v = k.to(q.dtype), v.to(q.dtype)
        longest = max(b[1] - b[0] for b in bounds), max(b[3] - b[2] for b in bounds)
        return _triton().attend(
            q, k, v, causal=causal, offset=0, scale=scale, keep=keep, longest=longest,
            bounds=torch.tensor(bounds, dtype=torch.int32, device=q.device),
        )[0]  # fmt: skip
    alone = len(q) == len(bounds)  # each in a row of its own
    out = []
    for n, (first_q, last_q, first_k, last_k, offset) in enumerate(bounds):
        b = slice(n, n + 1) if alone else slice(0, 1)
        keys = (b, slice(None), slice(first_k, last_k))
        own = {
            "offset": offset + first_q - first_k,
            "keep": None if keep is None else keep[keys[::2]],
        }
        own_q = q[b, :, first_q:last_q]
        out.append(attend(engine, own_q, k[keys], v[keys], causal=causal, scale=scale, **own))
    return torch.cat(out, 0 if alone else 2)
