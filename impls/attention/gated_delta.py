"""Gated delta rule: a memory that forgets as a whole and overwrites what a key already stands for.

    S_t = a_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T,   o_t = S_t^T q_t / sqrt(d)
    a = exp(-exp(A) softplus(W_a x + c)),  b = sigmoid(W_b x);  q, k = norm(silu(conv(W x))),
    v = silu(conv(W_v x));   y = W_O (RMSNorm_h(o) * silu(W_G x))

S memory (d, dv); a decay, b writing strength in (0, 1), of each key/value head; conv a causal
convolution over `conv` tokens, channel by channel; norm to unit length; dv = expand_v d.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.card import Card
from impls.attention._encoded import encoded
from impls.attention._recurrent import Form, RecurrentState, chunk_of, delta_rule, scan
from impls.attention.interface import (
    AttentionBlock,
    AttentionLayer,
    Capabilities,
    LayerShape,
    PositionEncoding,
    Work,
)

CARD = Card(
    cls="GatedDeltaNet",
    title="Gated DeltaNet",
    paper="arXiv:2412.06464",
    year=2024,
    summary="A recurrent memory with a forgetting gate that overwrites by key; constant size.",
    oracle="fla.ops.gated_delta_rule.naive; transformers' qwen3_next; exact retrieval by identity",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class GatedDeltaNet(AttentionBlock):
    """The gated delta rule with its projections, convolutions and gates."""

    form: Form = "chunked"
    chunk: int = 64  # tokens taken at once by the chunked form
    conv: int = 4  # tokens the convolutions see; 1: no convolution
    expand_v: int = 2  # width of a value head over that of a key head

    capabilities: ClassVar = Capabilities(
        bidirectional=False, cross=False, decoding="constant", cost="subquadratic"
    )

    def __post_init__(self) -> None:
        for name in ("chunk", "conv", "expand_v"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def build(self, shape: LayerShape, layer: int = 0) -> AttentionLayer:
        """The layer; Mamba's initial decays, time constants of 1 to 1000 tokens."""
        return GatedDeltaLayer(shape, self)

    def flops(self, work: Work) -> int:
        """Projections, gates and convolutions; the memory; inside a chunk, keys with keys too."""
        n, d, dv = work.n_q, work.d_head, work.d_head * self.expand_v
        heads, kv_heads, width = work.n_heads, work.n_kv_heads, work.n_heads * work.d_head
        projected = heads * (d + 2 * dv) + kv_heads * (d + dv + 2)
        convolved = self.conv * (heads * d + kv_heads * (d + dv)) if self.conv > 1 else 0
        chunk = chunk_of(self.form, self.chunk, n)
        within = heads * chunk * (d + dv) + kv_heads * chunk * (d + dv)
        through = 2 * heads * d * dv + 4 * kv_heads * d * dv
        return work.batch * n * (2 * width * projected + 2 * convolved + within + through)

    def cache_bytes_per_token(self, shape: LayerShape, itemsize: int = 4) -> float:
        """Nothing: the memory does not grow."""
        return 0


@dataclass
class DeltaState(RecurrentState):
    """The memory, and the inputs of the convolutions that they will see again."""

    recent: Tensor | None = None  # (B, conv - 1, channels)

    @property
    def nbytes(self) -> int:
        """Bytes held, whatever the length."""
        return sum(x.nbytes for x in (self.memory, self.recent) if x is not None)


class GatedDeltaLayer(AttentionLayer):
    """x to y (B, T, D)."""

    def __init__(self, shape: LayerShape, recipe: GatedDeltaNet) -> None:
        super().__init__()
        self.shape, self.recipe = shape, recipe
        D, H, G, d = shape.d_model, shape.n_heads, shape.n_kv_heads, shape.d_head
        dv = d * recipe.expand_v
        self.widths = (H * d, G * d, G * dv)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(D, w, bias=False) for w in self.widths)
        self.conv_weight = nn.Parameter(torch.empty(recipe.conv, sum(self.widths)))
        nn.init.uniform_(self.conv_weight, -(recipe.conv**-0.5), recipe.conv**-0.5)
        self.a_proj = nn.Linear(D, G, bias=False)
        self.b_proj = nn.Linear(D, G, bias=False)
        self.A_log = nn.Parameter(torch.empty(G).uniform_(1, 16).log())
        dt = torch.empty(G).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.dt_bias = nn.Parameter(dt.expm1().log())  # softplus of it is dt
        self.g_proj = nn.Linear(D, H * dv, bias=False)
        self.norm_weight = nn.Parameter(torch.ones(dv))
        self.o_proj = nn.Linear(H * dv, D, bias=False)

    def init_state(self, batch: int, max_len: int) -> DeltaState:
        """The memory of no tokens; no length is too long for it."""
        return DeltaState()

    def forward(
        self,
        x: Tensor,
        *,
        pos: Tensor,
        encoding: PositionEncoding,
        keep: Tensor | None = None,
        state: DeltaState | None = None,
        causal: bool = True,
    ) -> Tensor:
        """Read and write the memory, token by token of x (B, T, D).

        Raises:
            ValueError: without causality.
        """
        if not causal:
            raise ValueError("the gated delta rule is causal: choose another attention")
        state = DeltaState() if state is None else state
        seen = x if keep is None else x * keep[..., None]  # padding writes nothing
        q, k, v = self._convolved(seen, state)
        q, k = encoded(_unit(q), _unit(k), pos, encoding, "the gated delta rule")
        q = q * encoding.scale(self.shape.d_head)
        log_a, b = self._gates(seen, keep)
        o = self._scanned(q, k, v, log_a, b, state)
        state.length += x.shape[1]
        o = F.rms_norm(o, o.shape[-1:], eps=1e-5).to(x.dtype) * self.norm_weight
        return self.o_proj(o.transpose(1, 2).flatten(2) * F.silu(self.g_proj(x)))

    def _convolved(self, x: Tensor, state: DeltaState) -> tuple[Tensor, Tensor, Tensor]:
        """Before their norms: q (B, H, T, d), k (B, G, T, d), v (B, G, T, dv)."""
        inputs = torch.cat((self.q_proj(x), self.k_proj(x), self.v_proj(x)), dim=-1)
        taps = self.recipe.conv
        if taps > 1:
            if state.recent is None:
                state.recent = inputs.new_zeros(len(x), taps - 1, inputs.shape[-1])
            inputs = torch.cat((state.recent, inputs), dim=1)  # (B, conv - 1 + T, channels)
            state.recent = inputs[:, 1 - taps :].clone()  # a view would hold every input
            n = x.shape[1]
            inputs = F.silu(sum(w * inputs[:, i : i + n] for i, w in enumerate(self.conv_weight)))
        heads = (self.shape.n_heads, self.shape.n_kv_heads, self.shape.n_kv_heads)
        q, k, v = (
            part.unflatten(-1, (n, -1)).transpose(1, 2)
            for part, n in zip(inputs.split(self.widths, dim=-1), heads, strict=True)
        )
        return q, k, v

    def _gates(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
        """The gates log a and b of each key/value head, (B, G, T)."""
        rate = F.softplus(self.a_proj(x) + self.dt_bias)
        log_a, b = -self.A_log.exp() * rate, self.b_proj(x).sigmoid()
        if keep is not None:
            log_a, b = log_a * keep[..., None], b * keep[..., None]
        return log_a.mT, b.mT

    def _scanned(
        self, q: Tensor, k: Tensor, v: Tensor, log_a: Tensor, b: Tensor, state: DeltaState
    ) -> Tensor:
        """Outputs (B, H, T, dv), in float32 at least; a group's query heads read one memory."""
        q, k, v, log_a, b = (
            x.to(torch.promote_types(x.dtype, torch.float32)) for x in (q, k, v, log_a, b)
        )
        if state.memory is None:
            state.memory = k.new_zeros(len(k), k.shape[1], 1, k.shape[-1], v.shape[-1])
        tokens = (
            q.unflatten(1, (k.shape[1], -1)),  # (B, G, H/G, T, d)
            k[:, :, None],
            v[:, :, None],
            log_a[:, :, None, :, None],
            b[:, :, None, :, None],
        )
        chunk = chunk_of(self.recipe.form, self.recipe.chunk, q.shape[2])
        o, state.memory = scan(delta_rule, state.memory, tokens, chunk)
        return o.flatten(1, 2)


def _unit(x: Tensor) -> Tensor:
    """To length 1."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)
