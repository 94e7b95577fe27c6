"""Dense attention whose query heads share key/value heads: what MQA and GQA have in common."""

from torch import Tensor

from impls.attention._masked import masked_attention
from impls.attention.interface import AttentionKernel
from impls.models.attention import DefaultDense
from impls.models.hooks import visible

FEW = 16  # queries up to which all heads of a group go through one product


class GroupedAttention(AttentionKernel):
    """A kernel that reads each shared key once."""

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
        """Output (B, H, Tq, dv); decoding reads every key once a group, not once a head."""
        n_q, n_k = q.shape[2], k.shape[2]
        if n_q > FEW:
            return DefaultDense().attend(
                q, k, v, causal=causal, offset=offset, keep=keep, bias=bias, scale=scale
            )
        offset = n_k - n_q if offset is None else offset
        mask = visible(n_q, n_k, causal, offset, keep, q.device)
        return masked_attention(q, k, v, mask, bias=bias, scale=scale)
