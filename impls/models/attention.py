"""The usual attention layer: project to heads, encode positions, run a kernel, project back.

    q = W_q x,  k = W_k x,  v = W_v x;   y = W_o concat_h softmax(s q_h k_g^T + b) v_g

The kernel is what an attention technique brings; the position hooks are what a position technique
brings; the cache is either's. B batch, T tokens, H query heads, G key/value heads, d head width.
"""

from typing import Any

import torch
from torch import Tensor, nn

from impls.models.hooks import AttentionLayer, Cache, Frame, Held, LayerShape, PositionEncoding
from impls.models.kernel import DefaultDense, Dense, Kernel

__all__ = ["DefaultDense", "Dense", "Kernel", "SelfAttention", "weighted"]


class SelfAttention(AttentionLayer):
    """Multi-head attention with G key/value heads around any kernel."""

    def __init__(
        self, shape: LayerShape, kernel: Kernel | None = None, *, bias: bool = False
    ) -> None:
        super().__init__()
        self.shape, self.kernel = shape, kernel or DefaultDense()
        width, kv_width = shape.n_heads * shape.d_head, shape.n_kv_heads * shape.d_head
        self.q_proj = nn.Linear(shape.d_model, width, bias=bias)
        self.k_proj = nn.Linear(shape.d_model, kv_width, bias=bias)
        self.v_proj = nn.Linear(shape.d_model, kv_width, bias=bias)
        self.o_proj = nn.Linear(width, shape.d_model, bias=bias)

    def init_state(self, batch: int, max_len: int) -> Any:
        """The kernel's decoding state."""
        return self.kernel.init_state(batch, max_len)

    def forward(
        self,
        x: Tensor,
        *,
        pos: Tensor,
        encoding: PositionEncoding,
        keep: Tensor | None = None,
        state: object | None = None,
        causal: bool = True,
    ) -> Tensor:
        """Attend over x (B, T, D) and what the state holds."""
        q, k, v = (self._heads(proj(x)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        if state is None or isinstance(state, Cache):
            y = self._with_keys(q, k, v, pos, encoding, keep, state, causal)
        else:
            y = self._with_state(q, k, v, pos, encoding, keep, state)
        return self.o_proj(y.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.shape.d_head)).transpose(1, 2)

    def _with_keys(  # noqa: PLR0917 - the call's own arguments, passed on
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pos: Tensor,
        encoding: PositionEncoding,
        keep: Tensor | None,
        cache: Cache | None,
        causal: bool,
    ) -> Tensor:
        """Where all keys a query may see are at hand: given at once, or held by a cache."""
        held_ready = encoding.static_keys and not (cache is not None and cache.raw_keys)
        if held_ready:
            k = encoding.keys(k, Frame(pos, pos, causal=causal))
        held = Held(k, v, pos, pos, keep) if cache is None else cache.append(k, v, pos, keep)
        frame = Frame(held.q_pos, held.k_pos, causal=causal, keep=held.keep)
        keys = held.k if held_ready else encoding.keys(held.k, frame)
        bias = encoding.score_bias(q, held.k, frame)
        queries, scale = encoding.queries(q, frame), encoding.scale(self.shape.d_head)
        if encoding.reads_weights:
            self._need(self.kernel.dense, encoding, "reads the weights")
            return weighted(queries, keys, held.v, frame, bias, scale, encoding)
        self._need(bias is None or self.kernel.takes_bias, encoding, "adds a bias to the scores")
        return self.kernel.attend(
            queries, keys, held.v, causal=causal, keep=held.keep, bias=bias, scale=scale
        )

    def _with_state(  # noqa: PLR0917 - the call's own arguments, passed on
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pos: Tensor,
        encoding: PositionEncoding,
        keep: Tensor | None,
        state: object,
    ) -> Tensor:
        """Where the past is a state of the kernel's own, without keys."""
        frame = Frame(pos, pos)
        bias = encoding.score_bias(q, k, frame)
        self._need(bias is None, encoding, "adds a bias to the scores")
        self._need(encoding.static_keys, encoding, "turns keys anew at every step")
        return self.kernel.step(
            encoding.queries(q, frame),
            encoding.keys(k, frame),
            v,
            state,
            keep=keep,
            scale=encoding.scale(self.shape.d_head),
        )

    def _need(self, fits: bool, encoding: PositionEncoding, does: str) -> None:
        if not fits:
            raise ValueError(
                f"{type(encoding).__name__} {does}, and {type(self.kernel).__name__} has none for "
                "it: choose another of the two"
            )


def weighted(  # noqa: PLR0917 - the parts of one formula
    q: Tensor,
    k: Tensor,
    v: Tensor,
    frame: Frame,
    bias: Tensor | None,
    scale: float,
    encoding: PositionEncoding,
) -> Tensor:
    """Attention with its weights materialised, plus the encoding's value bias; (B, H, Tq, dv)."""
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    scores = scale * q @ k.mT if bias is None else scale * q @ k.mT + bias
    scores = scores.masked_fill(~frame.visible(), float("-inf"))
    weights = torch.nan_to_num(scores.softmax(-1))  # a row that sees nothing: 0, not NaN
    added = encoding.value_bias(weights, frame)
    return weights @ v if added is None else weights @ v + added
