"""Optimal brain surgeon: what a weight's removal costs once all others have made up for it.

    s_p = w_p^2 / (2 [H^-1]_pp),      w <- w - w_p / [H^-1]_pp H^-1_:p,      H = 2 X^T X

s saliency of weight p of a row, X what the layer reads, H^-1 whole. A layer loses its share in
`steps` portions: of each portion the lowest saliencies go at once, every row is moved to its
least-squares best, and saliencies are computed anew. As many steps as removals is the paper's way.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.card import Card
from impls.compression._hessian import check_damp, damped, inverse
from impls.compression._pruning import ScopedPruning
from impls.compression._together import diagonals, without
from impls.compression.interface import LayerStatistics, Need, Parts

CARD = Card(
    cls="OBS",
    title="Optimal brain surgeon",
    paper="Hassibi, Stork, NeurIPS 1992",
    year=1992,
    summary="Removes weights of small saliency by the full inverse Hessian; the rest makes up.",
    oracle="identity: constrained least squares",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class OBS(ScopedPruning):
    """Pruning by the inverse of the Hessian."""

    damp: float = 0.01  # added to the diagonal of H, in shares of its mean
    steps: int = 4  # portions; not from the paper, which removes one weight at a time

    def __post_init__(self) -> None:
        ScopedPruning.__post_init__(self)
        check_damp(self.damp)
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")

    @property
    def needs(self) -> frozenset[Need]:
        """The Hessian."""
        return frozenset({"hessian"})

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """What stays, moved to make up for the rest.

        Raises:
            ValueError: if the pattern does not divide the rows, or the damped Hessian is singular.
        """
        matrix, dead = damped(statistics.hessian, self.damp)
        whole = weight.double().masked_fill(dead, 0.0)
        left = inverse(matrix)
        removed = torch.zeros_like(whole, dtype=torch.bool)
        pruned = whole
        for step in range(self.steps):
            saliency = saliencies(pruned, diagonals(left, removed))
            saliency[removed] = -1.0  # they stay removed
            removed = self.removed(saliency, self.sparsity * (step + 1) / self.steps)
            pruned = without(whole, left, removed)
        return self.stored(pruned, removed)


def saliencies(weight: Tensor, diagonal: Tensor) -> Tensor:
    """The squared output error of removing each weight and making up for it, (R, C) float64.

    Args:
        weight: (R, C) float64.
        diagonal: of H^-1, (C,) or each row's own (R, C).
    """
    return weight.square() / diagonal / 2
