"""Softmax attention under any mask, its scores written out."""

import torch
from torch import Tensor


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Weights (..., Tq, Tk) in float32 at least; all 0 in a row that sees no key.

    Args:
        scores: (..., Tq, Tk).
        mask: True where a query sees a key, broadcast to the scores.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    scores = scores.masked_fill(~mask, float("-inf"))
    scores = scores.masked_fill(~mask.any(-1, keepdim=True), 0.0)  # no row of -inf: no NaN
    return scores.softmax(-1).masked_fill(~mask, 0.0)


def attended(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Outputs (B, G, H/G, Tq, dv) and weights (B, G, H/G, Tq, Tk) of grouped heads.

    The queries of a group are rows of one product, so no key is copied for them.

    Args:
        q: queries, scaled, (B, G, H/G, Tq, d).
        k: keys, (B, G, Tk, d).
        v: values, (B, G, Tk, dv).
        mask: True where a query sees a key, broadcast to the weights.
        bias: added to the scores, broadcast to the weights.
    """
    scores = (q.flatten(2, 3) @ k.mT).unflatten(2, q.shape[2:4])
    p = masked_softmax(scores if bias is None else scores + bias, mask)
    return (p.to(v.dtype).flatten(2, 3) @ v).unflatten(2, q.shape[2:4]), p
