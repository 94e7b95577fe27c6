"""Sparse Transformer: a query reads its neighbourhood and every l-th key.

    strided   A1 = {j: i - l <= j <= i},                A2 = {j: (i - j) mod l = 0}
    fixed     A1 = {j: floor(j / l) = floor(i / l)},    A2 = {j: j mod l >= l - c}

i query, j key, l stride, c expressivity; a head reads both sets, or heads take them in turn. With
l near sqrt(N) two steps lead from any token to any other, at a cost of N sqrt(N).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from harness.card import Card
from impls.attention._layout import EVERYWHERE
from impls.attention._sparse import SparseAttention
from impls.attention.interface import Capabilities

CARD = Card(
    cls="StridedAttention",
    title="Strided (Sparse Transformer)",
    paper="arXiv:1904.10509",
    year=2019,
    summary="Reads a neighbourhood and every l-th key, or fixed summary positions.",
    oracle="attention/peers/flex",
)


@dataclass(frozen=True)
class Factorised:
    """The two sets; where not causal, A1 of the strided pattern reaches as far ahead."""

    pattern: Literal["strided", "fixed"]
    stride: int
    expressivity: int
    n_heads: int  # 1: each head reads both sets; more: even heads read A1, odd ones A2

    def sees(self, i: Tensor, j: Tensor, head: Any) -> Tensor:
        """Whether j is in the set, or the sets, of i."""
        if self.pattern == "strided":
            near, far = (i - j).abs() <= self.stride, (i - j) % self.stride == 0
        else:
            near = i // self.stride == j // self.stride
            far = j % self.stride >= self.stride - self.expressivity
        if self.n_heads == 1:
            return near | far
        return torch.where(torch.as_tensor(head) % 2 == 0, near, far)

    def spans(self, first: int, last: int) -> Sequence[tuple[int, int]]:
        """A2 lies everywhere."""
        return EVERYWHERE


@dataclass(frozen=True, kw_only=True, slots=True)
class StridedAttention(SparseAttention):
    """Attention in two factors."""

    pattern: Literal["strided", "fixed"] = "strided"
    stride: int = 128
    expressivity: int = 8  # c: summary positions at the end of each stride, for `fixed`
    heads: Literal["union", "alternate"] = "union"  # who reads the two sets

    capabilities: ClassVar = Capabilities(bias=True, cost="subquadratic", shift=False)

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise ValueError(f"stride must be at least 1, got {self.stride}")
        if not 1 <= self.expressivity <= self.stride:
            raise ValueError(
                f"expressivity must be in [1, stride = {self.stride}], got {self.expressivity}"
            )

    def rule(self, *, causal: bool, n_heads: int, n_k: int) -> Factorised:
        """Both sets for every head, or one each."""
        n_rules = n_heads if self.heads == "alternate" else 1
        return Factorised(self.pattern, self.stride, self.expressivity, n_rules)
