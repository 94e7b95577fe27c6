"""torch's scaled_dot_product_attention, which chooses among its own kernels."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend

from harness.card import Card
from impls.attention.interface import AttentionKernel, AttentionPeer, Capabilities
from impls.models.attention import Dense

CARD = Card(
    cls="SDPA",
    title="torch SDPA",
    paper="https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html",
    year=2023,
    summary="torch's fused attention: flash, memory-efficient or plain, as it chooses.",
    packages=("torch",),
    oracle="attention/full",
    peer_of=("attention/full", "attention/flash", "attention/mqa", "attention/gqa"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SDPA(AttentionPeer):
    """Dense attention; causal without a mask where query and key lengths allow it."""

    capabilities: ClassVar = Capabilities(bias=True)

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
        return Dense().attend(
            q, k, v, causal=causal, offset=offset, keep=keep, bias=bias, scale=scale
        )

    def adopt(self, technique: AttentionKernel, *, fast: bool = False) -> "MaskedSDPA":
        """SDPA under the technique's mask."""
        return MaskedSDPA(technique=technique)

    def backend(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool = True) -> str:
        """The kernel that torch chooses: FLASH_ATTENTION, EFFICIENT_ATTENTION, MATH, ..."""
        grouped = q.shape[1] != k.shape[1]
        chosen = torch._fused_sdp_choice(q, k, v, is_causal=causal, enable_gqa=grouped)
        return SDPBackend(chosen).name


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedSDPA(AttentionKernel):
    """SDPA over the pairs that a technique reads, given as a mask."""

    technique: AttentionKernel

    capabilities: ClassVar = Capabilities(bias=True)

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
        mask = self.technique.mask(n_q, n_k, causal=causal, offset=offset, n_heads=q.shape[1])
        mask = mask.to(q.device)
        mask = mask if keep is None else mask & keep[:, None, None, :]
        if bias is not None:
            mask = bias.to(q.dtype).masked_fill(~mask, float("-inf"))
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, scale=scale, enable_gqa=grouped
        )
