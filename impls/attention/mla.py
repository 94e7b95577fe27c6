"""Multi-head latent attention: the cache holds one low-rank latent and one rotated key per token.

    c = RMSNorm(W_DKV x),   k_R = R(W_KR x),   [q_C; q_R] = W_UQ RMSNorm(W_DQ x)
    q_h = [q_C,h; R(q_R,h)],   k_h = [W_UK,h c; k_R],   v_h = W_UV,h c
    y = W_O concat_h softmax(s q_h . k_h) v_h
    absorbed:   q_C,h . W_UK,h c_j = (W_UK,h^T q_C,h) . c_j,   sum_j w_j v_j = W_UV,h sum_j w_j c_j

c latent (kv_rank); k_R key shared by the heads, which alone carries positions and has the width
the position encoding is built for, d_head; s = (d_nope + d_head)^(-1/2). The expanded form costs
less over a whole sequence, the absorbed one per token of decoding: attention with one key of width
kv_rank + d_head.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.card import Card
from impls.attention._scores import masked_softmax
from impls.attention.interface import (
    AttentionBlock,
    AttentionLayer,
    Cache,
    Capabilities,
    LayerShape,
    PositionEncoding,
    Work,
)
from impls.models.attention import Dense, weighted
from impls.models.decoder import RMSNorm
from impls.models.hooks import Frame, Held

CARD = Card(
    cls="MLA",
    title="Multi-head latent attention",
    paper="arXiv:2405.04434",
    year=2024,
    summary="Keys and values of all heads come from one cached low-rank latent per token.",
    oracle="transformers' deepseek_v3 attention; identity: absorbed equals expanded",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class MLA(AttentionBlock):
    """Attention from a latent; None stands for the paper's ratio to the head width."""

    kv_rank: int | None = None  # width of c; None: 4 d_head
    q_rank: int | None = None  # of the queries' own latent; None: they have none
    d_nope: int | None = None  # width of a head's part without position; None: d_head
    d_v: int | None = None  # width of a value head; None: d_nope
    form: Literal["auto", "expanded", "absorbed"] = "auto"  # auto: absorbed once a cache has tokens

    capabilities: ClassVar = Capabilities(gqa=False, bias=True, cross=False)

    def __post_init__(self) -> None:
        for name in ("kv_rank", "q_rank", "d_nope", "d_v"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1 or None, got {getattr(self, name)}")

    def widths(self, d_head: int) -> tuple[int, int, int]:
        """kv_rank, d_nope and d_v for heads of this width."""
        d_nope = self.d_nope or d_head
        return self.kv_rank or 4 * d_head, d_nope, self.d_v or d_nope

    def build(self, shape: LayerShape, layer: int = 0) -> AttentionLayer:
        """The layer.

        Raises:
            ValueError: for fewer key/value heads than heads: all share one latent already.
        """
        if shape.n_kv_heads != shape.n_heads:
            raise ValueError(
                f"n_kv_heads must be n_heads, {shape.n_heads}, for a shared latent, "
                f"not {shape.n_kv_heads}"
            )
        return LatentLayer(shape, self)

    def flops(self, work: Work) -> int:
        """Expanded: projections down, up and out, and the two products."""
        rank, d_nope, d_v = self.widths(work.d_head)
        heads, width = work.n_heads, work.n_heads * work.d_head
        d_qk = d_nope + work.d_head
        q_rank = self.q_rank
        queries = heads * d_qk * (q_rank or width) + (width * q_rank if q_rank else 0)
        latents = width * (rank + work.d_head) + rank * heads * (d_nope + d_v)
        products = work.pairs * heads * (d_qk + d_v)
        return 2 * work.batch * (work.n_q * (queries + latents + heads * d_v * width) + products)

    def cache_bytes_per_token(self, shape: LayerShape, itemsize: int = 4) -> float:
        """The latent and the rotated key, whatever the number of heads."""
        return (self.widths(shape.d_head)[0] + shape.d_head) * itemsize


class LatentLayer(AttentionLayer):
    """x to y (B, T, D)."""

    def __init__(self, shape: LayerShape, recipe: MLA) -> None:
        super().__init__()
        self.shape, self.recipe = shape, recipe
        rank, self.d_nope, self.d_v = recipe.widths(shape.d_head)
        self.d_qk, H = self.d_nope + shape.d_head, shape.n_heads
        if recipe.q_rank is None:
            self.q_proj: nn.Module = nn.Linear(shape.d_model, H * self.d_qk, bias=False)
        else:
            self.q_proj = nn.Sequential(
                nn.Linear(shape.d_model, recipe.q_rank, bias=False),
                RMSNorm(recipe.q_rank, 1e-6),
                nn.Linear(recipe.q_rank, H * self.d_qk, bias=False),
            )
        self.kv_down = nn.Linear(shape.d_model, rank + shape.d_head, bias=False)
        self.kv_norm = RMSNorm(rank, 1e-6)
        self.kv_up = nn.Linear(rank, H * (self.d_nope + self.d_v), bias=False)
        self.o_proj = nn.Linear(H * self.d_v, shape.d_model, bias=False)

    def init_state(self, batch: int, max_len: int) -> Cache:
        """Room for every token's rotated key, held as a key, and latent, held as a value."""
        return Cache(max_len)

    def forward(
        self,
        x: Tensor,
        *,
        pos: Tensor,
        encoding: PositionEncoding,
        keep: Tensor | None = None,
        state: Cache | None = None,
        causal: bool = True,
    ) -> Tensor:
        """Attend over x (B, T, D) and what the cache holds."""
        q = self.q_proj(x).unflatten(-1, (self.shape.n_heads, self.d_qk)).transpose(1, 2)
        q_c, q_r = q.split((self.d_nope, self.shape.d_head), dim=-1)
        k_r, c = self._latents(x)
        if encoding.static_keys:
            k_r = encoding.keys(k_r, Frame(pos, pos, causal=causal))
        attend = self._absorbed if self._absorbs(state, encoding) else self._expanded
        held = Held(k_r, c, pos, pos, keep) if state is None else state.append(k_r, c, pos, keep)
        frame = Frame(held.q_pos, held.k_pos, causal=causal, keep=held.keep)
        bias = encoding.score_bias(q_r, held.k, frame)
        if not encoding.static_keys:
            held = held._replace(k=encoding.keys(held.k, frame))
        q = torch.cat((q_c, encoding.queries(q_r, frame)), dim=-1)
        y = attend(q, held, frame, bias, encoding)
        return self.o_proj(y.transpose(1, 2).flatten(2))

    def _absorbs(self, state: Cache | None, encoding: PositionEncoding) -> bool:
        """Whether to attend on latents; a bias of the values needs the values themselves."""
        decoding = state is not None and state.length > 0
        wanted = {"auto": decoding, "absorbed": True, "expanded": False}[self.recipe.form]
        return wanted and not encoding.reads_weights

    def _latents(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The key that carries the position (B, 1, T, d), unrotated, and c (B, 1, T, kv_rank)."""
        rank, d = self.kv_norm.weight.numel(), self.shape.d_head
        c, k_r = self.kv_down(x)[:, None].split((rank, d), dim=-1)
        return k_r, self.kv_norm(c)

    def _expanded(
        self, q: Tensor, held: Held, frame: Frame, bias: Tensor | None, encoding: PositionEncoding
    ) -> Tensor:
        """Attention on every head's own keys and values."""
        heads = self.kv_up(held.v[:, 0]).unflatten(-1, (self.shape.n_heads, -1)).transpose(1, 2)
        k_c, v = heads.split((self.d_nope, self.d_v), dim=-1)
        k = torch.cat((k_c, held.k.expand(-1, self.shape.n_heads, -1, -1)), dim=-1)
        scale = encoding.scale(self.d_qk)
        if encoding.reads_weights:
            return weighted(q, k, v, frame, bias, scale, encoding)
        v = F.pad(v, (0, max(0, self.d_qk - self.d_v)))  # torch's fused kernel wants equal widths
        y = Dense().attend(q, k, v, causal=frame.causal, keep=frame.keep, bias=bias, scale=scale)
        return y[..., : self.d_v]

    def _absorbed(
        self, q: Tensor, held: Held, frame: Frame, bias: Tensor | None, encoding: PositionEncoding
    ) -> Tensor:
        """Attention on the latents, the heads of a query as rows of one product."""
        up = self.kv_up.weight.unflatten(0, (self.shape.n_heads, -1))  # (H, d_nope + d_v, kv_rank)
        w_uk, w_uv = up.split((self.d_nope, self.d_v), dim=1)
        q_c, q_r = (encoding.scale(self.d_qk) * q).split((self.d_nope, self.shape.d_head), dim=-1)
        products = [
            (x.flatten(1, 2) @ y[:, 0].mT) for x, y in ((q_c @ w_uk, held.v), (q_r, held.k))
        ]
        scores = sum(products).unflatten(1, (self.shape.n_heads, -1))  # (B, H, Tq, Tk)
        weights = masked_softmax(scores if bias is None else scores + bias, frame.visible())
        read = weights.to(q.dtype).flatten(1, 2) @ held.v[:, 0]
        return read.unflatten(1, (self.shape.n_heads, -1)) @ w_uv.mT
