"""Grouped-query attention: the query heads of a group read the same keys and values.

    y_h = softmax(s q_h K_g^T) V_g,  g = floor(h G / H)

G groups of H / G heads, s the scale; G = H is multi-head, G = 1 multi-query attention. The cache
holds 2 G d numbers a token and layer.
"""

from dataclasses import dataclass
from typing import ClassVar

from harness.card import Card
from impls.attention._grouped import GroupedAttention
from impls.attention.interface import Capabilities

CARD = Card(
    cls="GroupedQueryAttention",
    title="Grouped-query (GQA)",
    paper="arXiv:2305.13245",
    year=2023,
    summary="Groups of query heads share a key/value head, between multi-head and multi-query.",
    oracle="attention/peers/sdpa",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupedQueryAttention(GroupedAttention):
    """Attention with `n_groups` key/value heads."""

    n_groups: int = 2  # the paper: 8 of 64 heads; models here have 4 to 8

    capabilities: ClassVar = Capabilities(bias=True, dense=True)

    def __post_init__(self) -> None:
        if self.n_groups < 1:
            raise ValueError(f"n_groups must be at least 1, got {self.n_groups}")

    def kv_heads(self, n_heads: int, n_kv_heads: int) -> int:
        """As many as groups.

        Raises:
            ValueError: if the query heads cannot be divided among them.
        """
        if n_heads % self.n_groups:
            raise ValueError(
                f"{n_heads} query heads make no {self.n_groups} equal groups: "
                "change n_heads or n_groups"
            )
        return self.n_groups
