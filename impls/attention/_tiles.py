"""Exact attention tile by tile in plain torch: memory linear in the length, on any device.

    m' = max(m, max_j s_ij);  l' = l e^(m - m') + sum_j e^(s_ij - m');  o' likewise;  y_i = o / l

s_ij scores of one tile; m, l, o running maximum, total and output of the queries i. The backward
pass computes the scores again. Half precision is computed in float32, as tensor cores would.

B batch, H query heads in G groups of R, t rows of a tile; tiles have queries (B, G, R t, d).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 256  # large enough that matrix products outweigh the calls around them

INFINITY = float("inf")


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    offset: int,
    scale: float,
    keep: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Output (B, H, Tq, dv) in q's dtype and logarithm of the sum of exponentials (B, H, Tq).

    The latter is float32, or float64 where q is. A row that sees nothing is 0 and -inf. Both can
    be differentiated once, by q, k, v and bias.

    Args:
        q: queries, (B, H, Tq, d).
        k: keys, (B, G, Tk, d).
        v: values, (B, G, Tk, dv).
        causal: whether query i sees only keys j <= i + offset.
        offset: see `causal`.
        scale: factor of the scores.
        keep: (B, Tk) bool, False for keys nobody sees.
        bias: (B or 1, H, Tq, Tk), added to the scaled scores.
    """
    return _Tiled.apply(q, k, v, bias, keep, causal, offset, scale)


class _Scores(NamedTuple):
    """How scores are made from queries and keys."""

    scale: float
    causal: bool
    offset: int
    keep: Tensor | None
    bias: Tensor | None
    group: int  # R

    def tiles(self, n_q: int, n_k: int) -> Iterator[tuple[slice, list[slice]]]:
        """Blocks of queries, each with the blocks of keys that any of them may see."""
        for start in range(0, n_q, TILE):
            end = min(start + TILE, n_q)
            seen = min(n_k, end + self.offset) if self.causal else n_k
            width = TILE * TILE // (end - start)  # few queries, many keys: tiles of one size
            keys = [slice(j, min(j + width, seen)) for j in range(0, seen, width)]
            yield slice(start, end), keys

    def tile(self, q: Tensor, k: Tensor, i: slice, j: slice) -> Tensor:
        """Scores of queries i (B, G, R t, d) and keys j, -inf where not seen."""
        scores = (q * self.scale) @ k.mT
        by_head = scores.unflatten(2, (self.group, -1))  # (B, G, R, t, keys), the same memory
        if self.bias is not None:
            by_head += self.bias[:, :, i, j].unflatten(1, (-1, self.group))
        if self.causal and j.stop - 1 > i.start + self.offset:
            rows = torch.arange(i.start, i.stop, device=q.device)[:, None] + self.offset
            by_head.masked_fill_(torch.arange(j.start, j.stop, device=q.device) > rows, -INFINITY)
        if self.keep is not None:
            by_head.masked_fill_(~self.keep[:, None, None, None, j], -INFINITY)
        return scores


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *args):  # noqa: ANN001, ANN002, ANN205
        q, k, v, bias, keep, causal, offset, scale = args
        group, dtype = q.shape[1] // k.shape[1], torch.promote_types(q.dtype, torch.float32)
        rule = _Scores(scale, causal, offset, keep, bias, group)
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        lse = q.new_empty(q.shape[:-1], dtype=dtype)
        for i, keys in rule.tiles(q.shape[2], k.shape[2]):
            q_i = _rows(q, i, group, dtype)
            top = q_i.new_full(q_i.shape[:-1], -INFINITY)
            total, out_i = torch.zeros_like(top), q_i.new_zeros(*top.shape, v.shape[-1])
            for j in keys:
                scores = rule.tile(q_i, k[:, :, j].to(dtype), i, j)
                new_top = torch.maximum(top, scores.amax(-1))
                finite = new_top.masked_fill(new_top == -INFINITY, 0.0)  # nothing seen so far
                weights = scores.sub_(finite[..., None]).exp_()
                decay = (top - finite).exp_()
                total = total * decay + weights.sum(-1)
                out_i = out_i * decay[..., None] + weights @ v[:, :, j].to(dtype)
                top = new_top
            out_i /= total.masked_fill(total == 0, 1.0)[..., None]
            _by_group(out, group)[..., i, :] = out_i.unflatten(2, (group, -1))
            _by_group(lse, group)[..., i] = (top + total.log()).unflatten(2, (group, -1))
        ctx.save_for_backward(q, k, v, bias, keep, out, lse)
        ctx.call = causal, offset, scale
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out, d_lse):  # noqa: ANN001, ANN205
        q, k, v, bias, keep, out, lse = ctx.saved_tensors
        (causal, offset, scale), group, dtype = ctx.call, q.shape[1] // k.shape[1], lse.dtype
        rule = _Scores(scale, causal, offset, keep, bias, group)
        delta = (d_out.to(dtype) * out).sum(-1) - d_lse
        delta = delta.masked_fill(lse == -INFINITY, 0.0)
        lse = lse.masked_fill(lse == -INFINITY, INFINITY)  # sees nothing: its weights are 0
        d_q, d_k, d_v = (torch.zeros_like(x, dtype=dtype) for x in (q, k, v))
        d_bias = torch.zeros_like(bias) if ctx.needs_input_grad[3] else None
        for i, keys in rule.tiles(q.shape[2], k.shape[2]):
            q_i, d_out_i = (_rows(x, i, group, dtype) for x in (q, d_out))
            lse_i, delta_i = (_rows(x[..., None], i, group, dtype) for x in (lse, delta))
            d_q_i = torch.zeros_like(q_i)
            for j in keys:
                k_j, v_j = k[:, :, j].to(dtype), v[:, :, j].to(dtype)
                weights = rule.tile(q_i, k_j, i, j).sub_(lse_i).exp_()
                d_v[:, :, j] += weights.mT @ d_out_i
                d_scores = (d_out_i @ v_j.mT).sub_(delta_i).mul_(weights)
                d_k[:, :, j] += scale * d_scores.mT @ q_i
                d_q_i += d_scores @ k_j
                if d_bias is not None:
                    by_head = d_scores.unflatten(2, (group, -1)).flatten(1, 2)
                    d_bias[:, :, i, j] += by_head.sum_to_size(d_bias[:, :, i, j].shape)
            _by_group(d_q, group)[..., i, :] = scale * d_q_i.unflatten(2, (group, -1))
        return d_q.to(q.dtype), d_k.to(k.dtype), d_v.to(v.dtype), d_bias, None, None, None, None


def _by_group(x: Tensor, group: int) -> Tensor:
    """(B, H, ...) as (B, G, R, ...), the same memory."""
    return x.unflatten(1, (-1, group))


def _rows(x: Tensor, i: slice, group: int, dtype: torch.dtype) -> Tensor:
    """Rows i of (B, H, T, d) as (B, G, R t, d)."""
    return _by_group(x[:, :, i], group).flatten(2, 3).to(dtype)
