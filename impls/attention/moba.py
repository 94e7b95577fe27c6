"""MoBA: every query reads its own block of keys and the few others whose mean key it likes best.

    g_i = top_k over blocks b of  q_i . mean(k_j, j in b),   own block always, later ones never
    y_i = softmax over { j <= i : block(j) in g_i } (s q_i . k_j) v_j

i query, j key; block(j) = place of j // block, places counted among kept keys; s the scale. With as
many as all blocks chosen it is full attention. How the choice is read: `_routing.py`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from harness.card import Card
from impls.attention import _routing
from impls.attention._scores import attended
from impls.attention.interface import AttentionKernel, Capabilities, Work

CARD = Card(
    cls="MoBA",
    title="MoBA",
    paper="arXiv:2502.13189",
    year=2025,
    summary="Each query reads its own block of keys and the top few others by their mean key.",
    oracle="a loop over queries; identity: all blocks chosen is full attention",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class MoBA(AttentionKernel):
    """Mixture of block attention."""

    block: int = 512  # keys
    top_k: int = 3  # blocks read, a query's own among them

    capabilities: ClassVar = Capabilities(bidirectional=False, bias=True)

    def __post_init__(self) -> None:
        for name in ("block", "top_k"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

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
        """Output (B, H, Tq, dv); a bias plays no part in the choice.

        Raises:
            ValueError: without causality.
        """
        if not causal:
            raise ValueError("MoBA is causal: choose another attention for causal=False")
        n_q, n_k = q.shape[2], k.shape[2]
        offset = n_k - n_q if offset is None else offset
        q = q.unflatten(1, (k.shape[1], -1))  # (B, G, H/G, Tq, d)
        place = _routing.places(keep, n_k, q.device)
        seen = _routing.seen(place, n_q, offset)
        means = self._block_means(k, place)
        scaled = q * (q.shape[-1] ** -0.5 if scale is None else scale)
        if bias is not None:
            bias = bias.unflatten(1, (k.shape[1], -1))
        outputs = []
        for rows, keys in _routing.chunks(n_q, n_k, offset):
            mask = self._mask(q[..., rows, :], means, place[:, keys], seen[:, rows])
            some = None if bias is None else bias[..., rows, keys]
            y, _ = attended(scaled[..., rows, :], k[:, :, keys], v[:, :, keys], mask, some)
            outputs.append(y)
        return torch.cat(outputs, dim=3).flatten(1, 2)

    def pairs(self, work: Work) -> int:
        """Pairs inside the chosen blocks, and those of queries with the means of blocks."""
        read = compared = 0
        for n in range(max(work.n_k - work.n_q, 0) + 1, work.n_k + 1):  # keys a query sees
            own = (n - 1) % self.block + 1
            others = (n - own) // self.block
            read += own + min(self.top_k - 1, others) * self.block
            compared += others
        return read + compared // 2  # a mean is multiplied with a query, not with a weight

    def _block_means(self, k: Tensor, place: Tensor) -> Tensor:
        """Mean key of each block (B, G, blocks, d), in float32 at least."""
        k = k.to(torch.promote_types(k.dtype, torch.float32))
        blocks = torch.arange(-(-k.shape[2] // self.block), device=k.device)
        member = (place[:, None] // self.block == blocks[:, None]).to(k.dtype)
        return (member[:, None] @ k) / member.sum(-1).clamp(min=1)[:, None, :, None]

    def _mask(self, q: Tensor, means: Tensor, place: Tensor, seen: Tensor) -> Tensor:
        """Which keys each query reads, (B, G, H/G, Tq, Tk) bool."""
        score = q.detach().to(means.dtype) @ means.detach()[:, :, None].mT
        seen = seen[:, None, None, :, None]
        own = (seen - 1) // self.block
        forced = torch.arange(means.shape[2], device=q.device) == own
        choice = _routing.chosen(score, own, forced, self.top_k)
        inside = _routing.of_blocks(choice, place, self.block)
        return inside & (place[:, None, None, None] < seen)
