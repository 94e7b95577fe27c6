"""Multi-query attention: every query head reads the same keys and values.

    y_h = softmax(s q_h K^T) V,  h < H

K, V of one head; s the scale. The cache holds 2 d numbers a token and layer instead of 2 H d.
"""

from dataclasses import dataclass
from typing import ClassVar

from harness.card import Card
from impls.attention._grouped import GroupedAttention
from impls.attention.interface import Capabilities

CARD = Card(
    cls="MultiQueryAttention",
    title="Multi-query (MQA)",
    paper="arXiv:1911.02150",
    year=2019,
    summary="All query heads share one key/value head, so the cache is H times smaller.",
    oracle="attention/peers/sdpa",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiQueryAttention(GroupedAttention):
    """Attention with one key/value head."""

    capabilities: ClassVar = Capabilities(bias=True, dense=True)

    def kv_heads(self, n_heads: int, n_kv_heads: int) -> int:
        """One."""
        return 1
