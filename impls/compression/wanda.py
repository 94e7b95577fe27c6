"""Wanda: a weight counts as much as it is large and its input is.

    s_ij = |w_ij| ||x_j||_2

s saliency, x_j all that input channel j was in calibration. The lowest go, compared within each
output's row, or N:M; the others stay as they are.
"""

from dataclasses import dataclass

from torch import Tensor

from harness.card import Card
from impls.compression._pruning import Scope, ScopedPruning
from impls.compression.interface import LayerStatistics, Need, Parts

CARD = Card(
    cls="Wanda",
    title="Wanda",
    paper="arXiv:2306.11695",
    year=2023,
    summary="Removes in each row the weights whose size times that of their input is smallest.",
    oracle="identity: llm-compressor's weights, bit for bit; magnitude where inputs are alike",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanda(ScopedPruning):
    """Pruning by weights and activations."""

    scope: Scope = "row"

    @property
    def needs(self) -> frozenset[Need]:
        """The sum of squares of each input."""
        return frozenset({"squares"})

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """The weights of the highest saliency.

        Raises:
            ValueError: if the pattern does not divide the rows.
        """
        return self.stored(weight, self.removed(weight.abs() * statistics.squares.sqrt()))
