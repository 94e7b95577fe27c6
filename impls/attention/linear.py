"""Linear attention: a feature map instead of the softmax, so that the past fits into a matrix.

    y_i = phi(q_i)^T S_i / (phi(q_i)^T z_i),   S_i = sum_{j<=i} phi(k_j) v_j^T,   z_i = sum phi(k_j)
    phi(x) = elu(x) + 1

S memory (d, dv); z its normaliser, kept as one more column of S. Without causality both run over
all keys. A scale of the scores cancels in the quotient.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.card import Card
from impls.attention._recurrent import Form, RecurrentState, attend_decayed, chunk_of
from impls.attention.interface import AttentionKernel, Capabilities, Work

CARD = Card(
    cls="LinearAttention",
    title="Linear attention",
    paper="arXiv:2006.16236",
    year=2020,
    summary="A positive feature map replaces the softmax; the past is a matrix of constant size.",
    oracle="identity: parallel, chunked and recurrent forms agree; the sum written out",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearAttention(AttentionKernel):
    """Attention with the kernel phi(q).phi(k)."""

    form: Form = "chunked"
    chunk: int = 64  # tokens taken at once by the chunked form

    capabilities: ClassVar = Capabilities(decoding="constant", cost="subquadratic")

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise ValueError(f"chunk must be at least 1 token, got {self.chunk}")

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
        """Output (B, H, Tq, dv).

        Raises:
            ValueError: for a bias: there are no scores to add it to.
        """
        if bias is not None:
            raise ValueError("linear attention has no scores to add a bias to: leave bias None")
        n_q, n_k = q.shape[2], k.shape[2]
        features = self._features(q, k, v, keep)
        if causal:
            chunk = chunk_of(self.form, self.chunk, n_q)
            offset = n_k - n_q if offset is None else offset
            sums, _ = attend_decayed(*features, offset=offset, chunk=chunk)
        else:
            fq, fk, ones_v, _ = features
            sums = fq @ (fk.mT @ ones_v)
        return _quotient(sums).flatten(1, 2).to(q.dtype)

    def init_state(self, batch: int, max_len: int) -> RecurrentState:
        """S and z of no tokens; no length is too long for them."""
        return RecurrentState()

    def step(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: RecurrentState,
        *,
        keep: Tensor | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Output at T more tokens (B, H, T, dv); S and z take them in."""
        chunk = chunk_of(self.form, self.chunk, q.shape[2])
        sums, state.memory = attend_decayed(
            *self._features(q, k, v, keep), offset=0, chunk=chunk, memory=state.memory
        )
        state.length += q.shape[2]
        return _quotient(sums).flatten(1, 2).to(q.dtype)

    def flops(self, work: Work) -> int:
        """Into the memory and out of it; inside a chunk, queries with keys and with values."""
        n, d = work.n_q, work.d_head
        if not work.causal:
            return 4 * work.batch * work.n_heads * n * d * (d + 1)
        chunk = chunk_of(self.form, self.chunk, n)
        within = 0 if self.form == "recurrent" else n * chunk * (2 * d + 1)
        through = 0 if self.form == "parallel" else 4 * n * d * (d + 1)
        return work.batch * work.n_heads * (within + through)

    def _features(
        self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """By groups of heads: phi(q), phi(k), (v, 1) and no decay; in float32 at least."""
        work = torch.promote_types(q.dtype, torch.float32)
        fq = (F.elu(q.to(work)) + 1).unflatten(1, (k.shape[1], -1))
        fk = F.elu(k.to(work)) + 1
        if keep is not None:
            fk = fk * keep[:, None, :, None]
        ones_v = torch.cat((v.to(work), torch.ones_like(v[..., :1], dtype=work)), dim=-1)
        return fq, fk[:, :, None], ones_v[:, :, None], fk.new_zeros(1, 1, 1, k.shape[2], 1)


def _quotient(sums: Tensor) -> Tensor:
    """Weighted sum of values over the sum of weights, the last column; 0 where nothing is seen."""
    total = sums[..., -1:]
    return sums[..., :-1] / total.where(total > 0, 1.0)
