"""Attention over the kept blocks of a layout, forward and backward, in C++ or in plain torch.

    S_ij = s q_i . k_j where (i, j) is seen, else -inf;   lse_i = log sum_j exp S_ij
    P_ij = exp(S_ij - lse_i),  y_i = sum_j P_ij v_j;   dS_ij = P_ij (dy_i . v_j - dy_i . y_i)

B batch, H query heads, G key/value heads (R = H / G in a group), Tq and Tk tokens, d and dv widths.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from impls.attention import _block_rows
from impls.attention._layout import BlockLayout, Everything, Rule, layout
from impls.attention.kernels import block_sparse_cpu

__all__ = ["BlockLayout", "Everything", "Rule", "block_attention", "layout"]


def block_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: BlockLayout,
    *,
    scale: float | None = None,
    keep: Tensor | None = None,
) -> Tensor:
    """Attention over the pairs of a layout, with its gradient; rows that see nothing are 0.

    In C++ on CPUs with a compiler, for float32 and bfloat16 and more queries than a block has;
    otherwise row of blocks by row.

    Args:
        q: (B, H, Tq, d).
        k: (B, G, Tk, d).
        v: (B, G, Tk, dv).
        layout: for Tq and Tk tokens.
        scale: factor of the scores; None: d ** -0.5.
        keep: (B, Tk) bool, False for padding.

    Returns:
        (B, H, Tq, dv) in q's dtype.

    Raises:
        ValueError: if the layout is for other lengths or another number of heads.
    """
    if (layout.n_q, layout.n_k) != (q.shape[2], k.shape[2]):
        raise ValueError(
            f"the layout is for {layout.n_q} queries and {layout.n_k} keys, "
            f"not {q.shape[2]} and {k.shape[2]}"
        )
    if layout.n_heads not in (1, q.shape[1]):
        raise ValueError(f"the layout is for {layout.n_heads} heads, not {q.shape[1]}")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    k, v = k.to(q.dtype), v.to(q.dtype)
    return _BlockAttention.apply(q, k, v, layout, scale, keep)


class _BlockAttention(torch.autograd.Function):
    """Keeps the log of each row's sum, from which the weights are computed again going back."""

    @staticmethod
    def forward(  # noqa: PLR0917 - what `apply` passes on
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        layout: BlockLayout,
        scale: float,
        keep: Tensor | None,
    ) -> Tensor:
        run = block_sparse_cpu.forward if _compiled(q, layout) else _block_rows.forward
        out, lse = run(q, k, v, layout, scale=scale, keep=keep)
        ctx.save_for_backward(q, k, v, out, lse, keep)
        ctx.layout, ctx.scale = layout, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, keep = ctx.saved_tensors
        run = (
            block_sparse_cpu.backward if _compiled(tensors[0], ctx.layout) else _block_rows.backward
        )
        grads = run(grad_out, *tensors, ctx.layout, scale=ctx.scale, keep=keep)
        return *grads, None, None, None


def _compiled(q: Tensor, layout: BlockLayout) -> bool:
    """Whether the C++ kernel takes this call; it packs every key, too much for a few queries."""
    fits = q.device.type == "cpu" and q.dtype in block_sparse_cpu.DTYPES
    fits = fits and layout.block == block_sparse_cpu.BLOCK and layout.n_q > layout.block
    return fits and _compiler_found()


@cache
def _compiler_found() -> bool:
    return block_sparse_cpu.available()
