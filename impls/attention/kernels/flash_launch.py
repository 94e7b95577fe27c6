"""The Triton FlashAttention kernels as one differentiable call."""

import torch
import triton
from torch import Tensor

from impls.attention.kernels.flash_triton import backward_kv, backward_q, forward, row_terms


def _steps(x: Tensor, n: int) -> tuple[int, int, int]:
    """Strides over sequences, heads and tokens; all n sequences of a packed tensor share it."""
    return (x.stride(0) if x.shape[0] == n else 0, x.stride(1), x.stride(2))


class _Flash(torch.autograd.Function):
    """(out, lse) of n sequences, both differentiable."""

    @staticmethod
    def forward(ctx, q, k, v, keep, bounds, causal, offset, scale, longest):
        n, (_, H, T, d), dv = len(q) if bounds is None else len(bounds), q.shape, v.shape[-1]
        out = q.new_empty(len(q), T, H, dv).transpose(1, 2)  # as a layer's next product reads it
        lse = q.new_empty(len(q), H, T, dtype=torch.float32)
        lse_steps = (lse.stride(0) if len(q) == n else 0, T)
        keep_step = 0 if keep is None or len(keep) != n else keep.stride(0)
        steps = (*_steps(q, n), *_steps(k, n), *_steps(v, n), *_steps(out, n), *lse_steps)
        n_q, n_k = longest
        ctx.steps = (*steps, keep_step)
        ctx.sizes = (H, H // k.shape[1], n_q, n_k, offset, scale, triton.next_power_of_2(n_k))
        ctx.constants = {
            "D": d, "DV": dv, "CAUSAL": causal, "HAS_KEEP": keep is not None,
            "RAGGED": bounds is not None, "BLOCK_D": max(16, triton.next_power_of_2(d)),
            "BLOCK_DV": max(16, triton.next_power_of_2(dv)),
            "enable_fp_fusion": True,  # the default differs between versions of Triton
        }  # fmt: skip
        ctx.n = n
        with torch.cuda.device_of(q):
            forward[lambda meta: (triton.cdiv(n_q, meta["M"]) * n * H,)](
                q, k, v, keep, bounds, out, lse, *ctx.steps, *ctx.sizes, **ctx.constants
            )
        ctx.save_for_backward(q, k, v, keep, bounds, out, lse)
        return out, lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_out, d_lse):
        q, k, v, keep, bounds, out, lse = ctx.saved_tensors
        (_, H, T, dv), n, (n_q, n_k) = out.shape, ctx.n, ctx.sizes[2:4]
        if d_out.stride() != out.stride():
            d_out = torch.empty_like(out).copy_(d_out)
        delta = torch.empty_like(lse)
        new = torch.empty_like if bounds is None else torch.zeros_like  # keys outside all bounds
        d_q, d_k, d_v = torch.empty_like(q), new(k), new(v)
        args = (q, k, v, keep, bounds, d_out, lse, delta)
        with torch.cuda.device_of(q):
            row_terms[(triton.cdiv(T, 32) * len(q) * H,)](
                out, d_out, lse, d_lse.contiguous(), delta, *out.stride()[:3], H, T, dv,
                ctx.constants["BLOCK_DV"], 32, enable_fp_fusion=True,
            )  # fmt: skip
            backward_kv[lambda meta: (triton.cdiv(n_k, meta["N"]) * n * k.shape[1],)](
                *args, d_k, d_v, *ctx.steps, *_steps(d_k, n), *_steps(d_v, n), *ctx.sizes,
                **ctx.constants,
            )  # fmt: skip
            backward_q[lambda meta: (triton.cdiv(n_q, meta["M"]) * n * H,)](
                *args, d_q, *ctx.steps, *_steps(d_q, n), *ctx.sizes, **ctx.constants
            )
        return d_q, d_k, d_v, None, None, None, None, None, None


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    offset: int,
    scale: float,
    keep: Tensor | None = None,
    bounds: Tensor | None = None,
    longest: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Output (B, H, Tq, dv) in q's dtype and logarithm of the sum of exponentials (B, H, Tq) fp32.

    Args:
        q: queries, (B, H, Tq, d), bfloat16, float16 or float32.
        k: keys, (B, G, Tk, d) in the same dtype.
        v: values, (B, G, Tk, dv) in the same dtype.
        causal: whether query i sees only keys j <= i + offset.
        offset: see `causal`.
        scale: factor of the scores, above 0.
        keep: (B, Tk) bool, False for keys nobody sees.
        bounds: (n, 5) int32 as the module says, n = B, or any n and B = 1 for packed sequences.
        longest: most queries and most keys of one sequence; None: Tq and Tk.
    """
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    keep = None if keep is None else keep.contiguous().view(torch.uint8)
    longest = (q.shape[2], k.shape[2]) if longest is None else longest
    return _Flash.apply(q, k, v, keep, bounds, causal, offset, scale, longest)
