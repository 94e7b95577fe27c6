"""Optimal brain damage: what removing a weight alone costs, if inputs did not act together.

    s_ij = H_jj w_ij^2 / 2,      H = 2 X^T X,  of which only the diagonal is used

s is the squared output error of that one removal, X what the layer reads. The lowest go, over the
layer, in each row, or N:M; the others stay as they are.
"""

from dataclasses import dataclass

from torch import Tensor

from harness.card import Card
from impls.compression._pruning import ScopedPruning
from impls.compression.interface import LayerStatistics, Need, Parts

CARD = Card(
    cls="OBD",
    title="Optimal brain damage",
    paper="LeCun, Denker, Solla, NeurIPS 1989",
    year=1989,
    summary="Removes the weights of the smallest second-order saliency, by the Hessian's diagonal.",
    oracle="identity: the output error of each removal alone",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class OBD(ScopedPruning):
    """Pruning by the diagonal of the Hessian."""

    @property
    def needs(self) -> frozenset[Need]:
        """The sum of squares of each input: half the Hessian's diagonal."""
        return frozenset({"squares"})

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """The weights of the highest saliency.

        Raises:
            ValueError: if the pattern does not divide the rows.
        """
        return self.stored(weight, self.removed(saliencies(weight, statistics.squares)))


def saliencies(weight: Tensor, squares: Tensor) -> Tensor:
    """The squared output error of removing each weight (R, C) alone, float64.

    Args:
        weight: (R, C).
        squares: the sum of squares of each input, H_jj / 2, (C,) float64.
    """
    return weight.double().square() * squares
