"""Options that pruning techniques share, and which weights go: those of the lowest scores.

A unit is as many neighbours as are compared with each other: a layer, a row, or the M of N:M. In
each the same share goes, counted exactly. R rows, C columns.
"""

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from impls.compression._sparse import SparseWeight, ValueDtype
from impls.compression.interface import LayerCompression, Parts

Scope = Literal["layer", "row"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PruningOptions(LayerCompression):
    """How much goes, in which pattern, and how the rest is stored."""

    sparsity: float = 0.5  # share of a layer's weights that goes
    pattern: str = ""  # "N:M": of every M neighbours in a row N stay; "": wherever
    value_dtype: ValueDtype = "float16"

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity must be at least 0 and below 1, got {self.sparsity}")
        if not self.pattern:
            return
        stay, period = parsed(self.pattern)
        share = 1 - stay / period
        if abs(share - self.sparsity) > 1e-6:
            raise ValueError(
                f"pattern {self.pattern!r} removes {share:g} of the weights and sparsity asks for "
                f"{self.sparsity:g}: set sparsity to {share:g}"
            )

    def period(self, columns: int) -> int:
        """How many neighbours of a row lose the same share: M of N:M, or the whole row.

        Raises:
            ValueError: if M does not divide the row.
        """
        if not self.pattern:
            return columns
        _, period = parsed(self.pattern)
        if columns % period:
            raise ValueError(
                f"pattern {self.pattern!r} does not divide {columns} inputs: choose a divisor, "
                "or leave the layer out"
            )
        return period

    def stored(self, weight: Tensor, removed: Tensor) -> Parts:
        """What is kept of a weight (R, C)."""
        return Parts(SparseWeight(weight, removed, dtype=self.value_dtype))


@dataclass(frozen=True, kw_only=True, slots=True)
class ScopedPruning(PruningOptions):
    """Pruning by scores that are compared over a layer or a row."""

    scope: Scope = "layer"  # not read under a pattern, whose scope is M neighbours

    def removed(self, score: Tensor, share: float | None = None) -> Tensor:
        """The places of the lowest scores (R, C); `share` of them, else as many as options say."""
        rows, columns = score.shape
        unit = self.period(columns)
        if self.scope == "layer" and not self.pattern:
            unit = rows * columns
        return lowest(score, self.sparsity if share is None else share, unit)


def parsed(pattern: str) -> tuple[int, int]:
    """N and M of "N:M".

    Raises:
        ValueError: if it is something else.
    """
    found = re.fullmatch(r"(\d+):(\d+)", pattern)
    stay, period = map(int, found.groups()) if found else (0, 0)
    if not 0 < stay < period:
        raise ValueError(
            f"pattern must be like '2:4', fewer of every M weights to stay, got {pattern!r}"
        )
    return stay, period


def lowest(score: Tensor, share: float, unit: int) -> Tensor:
    """Where the lowest scores of each unit stand, (R, C) bool; of equal scores the first.

    Args:
        score: (R, C).
        share: of each unit; the count is rounded.
        unit: neighbours that are compared, a divisor of R C.
    """
    units = score.reshape(-1, unit)
    order = units.sort(dim=1, stable=True).indices[:, : round(share * unit)]
    marked = torch.zeros_like(units, dtype=torch.bool).scatter_(1, order, value=True)
    return marked.view(score.shape)
