"""Dense attention in bfloat16 on a CPU, for training: matrix products a block of queries at a time.

    P = softmax(s Q K^T),  O = P V
    dV = P^T dO,  dS = P * (dO V^T - rowsum(P * dO V^T)),  dQ = s dS K,  dK = s dS^T Q

torch's fused kernel takes twice as long in this dtype, forward and backward (AMD Zen 4, 256 tokens,
heads of 32). It keeps no P, though, so it needs less memory and serves long sequences better.
"""

from typing import Any

import torch
from torch import Tensor

BLOCK = 64  # queries: fewer lose speed in small products, more compute pairs that are masked
MAX_LEN = 1024  # P is T^2 numbers a head: beyond this memory counts for more than speed


def suits(q: Tensor, k: Tensor) -> bool:
    """Whether this is the faster way for these queries and keys, (B, H, T, d)."""
    training = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad)
    on_cpu = q.device.type == "cpu" and q.dtype == torch.bfloat16
    return training and on_cpu and q.shape[2] == k.shape[2] <= MAX_LEN


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, *, causal: bool) -> Tensor:
    """Output (B, H, T, dv) of q (B, H, T, d), k (B, G, T, d), v (B, G, T, dv)."""
    group = q.shape[1] // k.shape[1]
    if group > 1:
        k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    out = _Attention.apply(*(x.flatten(0, 1) for x in (q, k, v)), scale, causal)
    return out.unflatten(0, q.shape[:2])


class _Attention(torch.autograd.Function):
    """The same on (N, T, d), N = B H."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
        out = torch.empty_like(v)
        weights = []
        for start, end, seen in _blocks(q.shape[1], causal):
            mask = q.new_zeros(end - start, seen)
            if causal:
                hidden = torch.ones(end - start, seen, dtype=torch.bool).triu(start + 1)
                mask.masked_fill_(hidden, float("-inf"))
            scores = torch.baddbmm(mask, q[:, start:end], k[:, :seen].mT, alpha=scale)
            weights.append(scores.softmax(-1))
            torch.bmm(weights[-1], v[:, :seen], out=out[:, start:end])
        ctx.save_for_backward(q, k, v, *weights)
        ctx.scale, ctx.causal = scale, causal
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *weights = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for p, (start, end, seen) in zip(weights, _blocks(q.shape[1], ctx.causal), strict=True):
            rows = d_out[:, start:end]
            dv[:, :seen].baddbmm_(p.mT, rows)
            ds = torch._softmax_backward_data(rows @ v[:, :seen].mT, p, -1, p.dtype)
            dq[:, start:end].baddbmm_(ds, k[:, :seen], beta=0, alpha=ctx.scale)
            dk[:, :seen].baddbmm_(ds.mT, q[:, start:end], alpha=ctx.scale)
        return dq, dk, dv, None, None


def _blocks(n: int, causal: bool) -> list[tuple[int, int, int]]:
    """First query, end of queries, and number of keys of each block."""
    if not causal:
        return [(0, n, n)]
    return [(start, min(start + BLOCK, n), min(start + BLOCK, n)) for start in range(0, n, BLOCK)]
