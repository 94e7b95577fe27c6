"""Retention: no softmax; what a token gives to later ones decays with the distance, head by head.

    y_n = sum_{m<=n} gamma_h^(n-m) (q_n . k_m / sqrt(d)) v_m  =  q_n^T S_n / sqrt(d)
    S_n = gamma_h S_{n-1} + k_n v_n^T,   gamma_h = 1 - 2^(-5-h)
    layer:  W_O (swish(W_G x) * GroupNorm_h(y))

h head, counted from 0; S memory (d, dv); dv = expand_v d. Rotation (the paper's xPos) is the
position encoding's. The paper's further normalisations of the scores cancel in the group norm.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.card import Card
from impls.attention._encoded import encoded
from impls.attention._recurrent import Form, RecurrentState, attend_decayed, chunk_of
from impls.attention.interface import (
    AttentionKernel,
    AttentionLayer,
    Capabilities,
    LayerShape,
    PositionEncoding,
    Work,
)

CARD = Card(
    cls="Retention",
    title="Retention (RetNet)",
    paper="arXiv:2307.08621",
    year=2023,
    summary="Scores without softmax, decayed by distance; the past is a matrix of constant size.",
    oracle="fla.ops.retention.naive; identity: parallel, chunked and recurrent forms agree",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention(AttentionKernel):
    """Multi-scale retention."""

    form: Form = "chunked"
    chunk: int = 64  # tokens taken at once by the chunked form
    expand_v: int = 2  # width of a value head over that of a key head, in the layer

    capabilities: ClassVar = Capabilities(
        bidirectional=False, decoding="constant", cost="subquadratic"
    )

    def __post_init__(self) -> None:
        for name in ("chunk", "expand_v"):
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
        """Output (B, H, Tq, dv).

        Raises:
            ValueError: for a bias or without causality.
        """
        if bias is not None or not causal:
            raise ValueError("retention is causal and has no scores to add a bias to")
        offset = k.shape[2] - q.shape[2] if offset is None else offset
        return self._retained(q, k, v, keep, scale, offset, None)[0]

    def init_state(self, batch: int, max_len: int) -> RecurrentState:
        """S of no tokens; no length is too long for it."""
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
        """Output at T more tokens (B, H, T, dv); S takes them in."""
        y, state.memory = self._retained(q, k, v, keep, scale, 0, state.memory)
        state.length += q.shape[2]
        return y

    def _retained(  # noqa: PLR0917 - the call's own arguments, passed on
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        keep: Tensor | None,
        scale: float | None,
        offset: int,
        memory: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        work = torch.promote_types(q.dtype, torch.float32)
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        log_a = log_decay(q.shape[1]).to(q.device, work).view(1, k.shape[1], -1, 1, 1)
        log_a = log_a.expand(-1, -1, -1, k.shape[2], -1)
        k = k.to(work)
        if keep is not None:  # padding neither enters the memory nor lets it decay
            k, log_a = k * keep[:, None, :, None], log_a * keep[:, None, None, :, None]
        y, memory = attend_decayed(
            (scale * q.to(work)).unflatten(1, (k.shape[1], -1)),
            k[:, :, None],
            v.to(work)[:, :, None],
            log_a,
            offset=offset,
            chunk=chunk_of(self.form, self.chunk, q.shape[2]),
            memory=memory,
        )
        return y.flatten(1, 2).to(q.dtype), memory

    def build(self, shape: LayerShape, layer: int = 0) -> AttentionLayer:
        """The layer, with its group norm and gate."""
        return RetentionLayer(shape, self)

    def flops(self, work: Work) -> int:
        """Into the memory and out of it; inside a chunk, queries with keys and with values."""
        n, d = work.n_q, work.d_head
        chunk = chunk_of(self.form, self.chunk, n)
        within = 0 if self.form == "recurrent" else 2 * n * chunk * d
        through = 0 if self.form == "parallel" else 4 * n * d * d
        return work.batch * work.n_heads * (within + through)


def log_decay(n_heads: int) -> Tensor:
    """The logarithms of gamma_h, (H,) float64."""
    h = torch.arange(n_heads, dtype=torch.float64)
    return torch.log1p(-torch.exp2(-5 - h))


class RetentionLayer(AttentionLayer):
    """Projections, retention, a norm per head and a gate."""

    def __init__(self, shape: LayerShape, kernel: Retention) -> None:
        super().__init__()
        self.shape, self.kernel = shape, kernel
        d, dv = shape.d_head, shape.d_head * kernel.expand_v
        self.q_proj = nn.Linear(shape.d_model, shape.n_heads * d, bias=False)
        self.k_proj = nn.Linear(shape.d_model, shape.n_kv_heads * d, bias=False)
        self.v_proj = nn.Linear(shape.d_model, shape.n_kv_heads * dv, bias=False)
        self.g_proj = nn.Linear(shape.d_model, shape.n_heads * dv, bias=False)
        self.o_proj = nn.Linear(shape.n_heads * dv, shape.d_model, bias=False)

    def init_state(self, batch: int, max_len: int) -> RecurrentState:
        """The kernel's."""
        return self.kernel.init_state(batch, max_len)

    def forward(
        self,
        x: Tensor,
        *,
        pos: Tensor,
        encoding: PositionEncoding,
        keep: Tensor | None = None,
        state: RecurrentState | None = None,
        causal: bool = True,
    ) -> Tensor:
        """Retain over x (B, T, D) and what the state holds."""
        projections = (self.q_proj, self.k_proj, self.v_proj)
        heads = (self.shape.n_heads, self.shape.n_kv_heads, self.shape.n_kv_heads)
        q, k, v = (
            proj(x).unflatten(-1, (n, -1)).transpose(1, 2)
            for proj, n in zip(projections, heads, strict=True)
        )
        q, k = encoded(q, k, pos, encoding, "retention")
        where = {"keep": keep, "scale": encoding.scale(self.shape.d_head)}
        if state is None:
            y = self.kernel.attend(q, k, v, causal=causal, **where)
        else:
            y = self.kernel.step(q, k, v, state, **where)
        y = F.layer_norm(y, y.shape[-1:])  # a group norm whose groups are the heads
        return self.o_proj(F.silu(self.g_proj(x)) * y.transpose(1, 2).flatten(2))
