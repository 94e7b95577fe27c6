"""FlashAttention: exact attention that never writes its scores to memory.

    m' = max(m, max_j s_ij);  l' = l e^(m - m') + sum_j e^(s_ij - m')
    o' = o e^(m - m') + sum_j e^(s_ij - m') v_j;              y_i = o / l

s scores of query i with one tile of keys j; m, l, o the running maximum, total and output of i.
The backward pass makes the scores again from log l + m. Memory grows as N, not N^2.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from harness.card import Card
from impls.attention import _flash
from impls.attention.interface import AttentionKernel, Capabilities

CARD = Card(
    cls="FlashAttention",
    title="FlashAttention",
    paper="arXiv:2205.14135",
    year=2022,
    summary="Exact attention by tiles with an online softmax, in memory linear in the length.",
    oracle="attention/peers/sdpa",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FlashAttention(AttentionKernel):
    """Tiled exact attention; the loop order and base-2 exponentials of FlashAttention-2.

    `engine` is "triton" on CUDA, "blocks" (C++) on CPU in float32 and bfloat16, and "tiles" (plain
    torch) otherwise, where it is "auto". A bias is taken by "tiles" alone.
    """

    engine: _flash.Engine = "auto"

    capabilities: ClassVar = Capabilities(bias=True, dense=True)

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
            ValueError: if `engine` is "triton" and that is not installed.
        """
        offset = k.shape[2] - q.shape[2] if offset is None else offset
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        return _flash.attend(
            self.engine, q, k, v, causal=causal, offset=offset, scale=scale, keep=keep, bias=bias
        )
