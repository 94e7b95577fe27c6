"""Full attention: every query reads every key it may see.

    y_i = sum_j softmax_j(s q_i . k_j + b_ij) v_j,   j <= i + offset where causal

i, j indices of queries and keys; s the scale, d^(-1/2) by default; b a bias.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from harness.card import Card
from impls.attention._masked import masked_attention
from impls.attention.interface import AttentionKernel, Capabilities
from impls.models.hooks import visible

CARD = Card(
    cls="FullAttention",
    title="Full attention",
    paper="arXiv:1706.03762",
    year=2017,
    summary="Softmax over every visible key, scores materialised; the baseline of the family.",
    oracle="attention/peers/sdpa",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FullAttention(AttentionKernel):
    """Dense softmax attention with its scores written out."""

    capabilities: ClassVar = Capabilities(bias=True, dense=True)

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        causal: bool = True,
        offset: int | None = None,
        keep: Tensor | None = None,
        bias: Tensor | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Output (B, H, Tq, dv)."""
        n_q, n_k = q.shape[2], k.shape[2]
        offset = n_k - n_q if offset is None else offset
        mask = visible(n_q, n_k, causal, offset, keep, q.device)
        return masked_attention(q, k, v, mask, bias=bias, scale=scale)
