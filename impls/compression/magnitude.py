"""Magnitude pruning: the smallest weights go, the others stay as they are.

    s_ij = |w_ij|

s saliency; the weights of the lowest go, over the layer, in each row, or N:M (arXiv:1506.02626).
Nothing is known of what the layer reads, and nothing is made up for.
"""

from dataclasses import dataclass

from torch import Tensor

from harness.card import Card
from impls.compression._pruning import ScopedPruning
from impls.compression.interface import LayerStatistics, Parts

CARD = Card(
    cls="Magnitude",
    title="Magnitude pruning",
    paper="arXiv:1506.02626",
    year=2015,
    summary="Removes the smallest weights, without calibration.",
    oracle="identity: torch.nn.utils.prune, bit for bit",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Magnitude(ScopedPruning):
    """Pruning by absolute value."""

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """The largest weights.

        Raises:
            ValueError: if the pattern does not divide the rows.
        """
        return self.stored(weight, self.removed(weight.abs()))
