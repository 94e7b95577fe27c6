"""Softmax attention over the pairs of a mask, scores written out."""

import torch
from torch import Tensor


def masked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Output (B, H, Tq, dv) in q's dtype; rows that see nothing are 0.

    Args:
        q: queries, (B, H, Tq, d).
        k: keys, (B, G, Tk, d).
        v: values, (B, G, Tk, dv).
        mask: the pairs to read, (B or 1, H or 1, Tq, Tk) bool.
        bias: (B or 1, H, Tq, Tk), added to the scaled scores.
        scale: factor of the scores; None: d ** -0.5.
    """
    group = q.shape[1] // k.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = scale * q @ k.repeat_interleave(group, dim=1).mT
    if bias is not None:
        scores = scores + bias
    weights = torch.softmax(scores.masked_fill(~mask, float("-inf")), dim=-1)
    weights = weights.masked_fill(~mask.any(-1, keepdim=True), 0.0)  # nothing seen: 0, not NaN
    return weights.to(v.dtype) @ v.repeat_interleave(group, dim=1)
