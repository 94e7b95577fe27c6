"""Attention over the pairs of a rule: what the sparse techniques share.

A technique gives its rule; the blocks it keeps are computed (`_blocks.py`), or, with a bias, all
scores under its mask.
"""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from impls.attention._blocks import BlockLayout, Everything, Rule, block_attention, layout
from impls.attention._masked import masked_attention
from impls.attention.interface import AttentionKernel, Capabilities, Work


class SparseAttention(AttentionKernel):
    """A kernel that reads the pairs of a rule."""

    capabilities: ClassVar = Capabilities(bias=True, cost="subquadratic")

    @abstractmethod
    def rule(self, *, causal: bool, n_heads: int, n_k: int) -> Rule:
        """Which keys a query reads; where causal, the same for a query whatever n_k."""

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
        """Output (B, H, Tq, dv); with a bias every score is written out."""
        n_heads, n_q, n_k = q.shape[1], q.shape[2], k.shape[2]
        offset = n_k - n_q if offset is None else offset
        if bias is None:
            rule = self.rule(causal=causal, n_heads=n_heads, n_k=n_k)
            blocks = layout(rule, n_q, n_k, causal=causal, offset=offset)
            return block_attention(q, k, v, blocks, scale=scale, keep=keep)
        mask = self.mask(n_q, n_k, causal=causal, offset=offset, n_heads=n_heads).to(q.device)
        mask = mask if keep is None else mask & keep[:, None, None, :]
        return masked_attention(q, k, v, mask, bias=bias, scale=scale)

    def mask(self, n_q: int, n_k: int, *, causal: bool, offset: int, n_heads: int) -> Tensor:
        """The pairs of the rule, written out: (1, H or 1, Tq, Tk) bool."""
        rule = self.rule(causal=causal, n_heads=n_heads, n_k=n_k)
        i, j = torch.arange(offset, offset + n_q)[:, None], torch.arange(n_k)
        seen = torch.stack([rule.sees(i, j, head).expand(n_q, n_k) for head in range(rule.n_heads)])
        return (seen & (j <= i) if causal else seen)[None]

    def blocks(self, work: Work) -> BlockLayout:
        """The blocks that one call of this size keeps."""
        rule = self.rule(causal=work.causal, n_heads=work.n_heads, n_k=work.n_k)
        offset = work.n_k - work.n_q
        return layout(rule, work.n_q, work.n_k, causal=work.causal, offset=offset)

    def pairs(self, work: Work) -> int:
        """Query-key pairs of one head that the rule sees, averaged where heads differ."""
        blocks = self.blocks(work)
        return round(blocks.pairs / blocks.n_heads)

    def kept_share(self, work: Work) -> float:
        """Blocks kept over the blocks that dense attention of the same causality has."""
        kept = self.blocks(work)
        every = layout(
            Everything(), work.n_q, work.n_k, causal=work.causal, offset=work.n_k - work.n_q
        )
        return len(kept.cols) / kept.n_heads / len(every.cols)
