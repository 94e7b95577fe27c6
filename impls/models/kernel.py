"""Attention on heads as a layer calls it, and the dense one that models have by default.

    y_i = sum_j softmax_j(s q_i . k_j + b_ij) v_j,   j <= i + offset where causal

B batch, Tq queries, Tk keys, H query heads, G key/value heads, d and dv head widths.
"""

from typing import Any, Protocol

from torch import Tensor
from torch.nn import functional as F

from impls.models import _training_attention
from impls.models.hooks import Cache
from impls.models.hooks import visible as visible_pairs


class Kernel(Protocol):
    """Attention on heads; a technique of the attention family, or `Dense`."""

    takes_bias: bool
    dense: bool  # plain softmax over all visible keys: its weights may be written out

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
        """Output (B, H, Tq, dv) of q (B, H, Tq, d), k (B, G, Tk, d), v (B, G, Tk, dv)."""

    def init_state(self, batch: int, max_len: int) -> Any:
        """A `Cache`, or a state of the kernel's own."""

    def step(self, q: Tensor, k: Tensor, v: Tensor, state: Any, **options: Any) -> Tensor:
        """Output at the newest tokens; only called where the state is no `Cache`."""


class Dense:
    """Softmax over every visible key, by torch's fused kernel where it has one."""

    takes_bias = True
    dense = True

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
        """Output (B, H, Tq, dv); rows that see nothing are 0."""
        n_q, n_k = q.shape[2], k.shape[2]
        offset = n_k - n_q if offset is None else offset
        grouped = q.shape[1] != k.shape[1]
        everything = not causal or (n_q == 1 and offset >= n_k - 1)
        if keep is None and bias is None and (everything or offset == 0):
            # torch's is_causal puts the first query beside the first key: right where offset is 0.
            return F.scaled_dot_product_attention(
                q, k, v, is_causal=not everything, scale=scale, enable_gqa=grouped
            )
        mask = visible_pairs(n_q, n_k, causal, offset, keep, q.device)
        if bias is not None:
            mask = bias.to(q.dtype).masked_fill(~mask, float("-inf"))
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, scale=scale, enable_gqa=grouped
        )

    def init_state(self, batch: int, max_len: int) -> Cache:
        """Room for the keys and values of every token."""
        return Cache(max_len)

    def step(self, q: Tensor, k: Tensor, v: Tensor, state: Any, **options: Any) -> Tensor:
        """Never called: the state is a `Cache`."""
        raise NotImplementedError


class DefaultDense(Dense):
    """`Dense`, but in training in bfloat16 on a CPU the way that is faster there."""

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
        """Output (B, H, Tq, dv); rows that see nothing are 0."""
        plain = keep is None and bias is None and (offset == 0 or offset is None)
        if plain and _training_attention.suits(q, k):
            scale = q.shape[-1] ** -0.5 if scale is None else scale
            return _training_attention.attend(q, k, v, scale, causal=causal)
        return super().attend(
            q, k, v, causal=causal, offset=offset, keep=keep, bias=bias, scale=scale
        )
