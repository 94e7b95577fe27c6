"""Optimal brain compression: greedy exact removal, over rows as the loss of the layer asks.

    1  every row is emptied by ExactOBS; the loss of each removal is noted
    2  the next removal is always the one of the row whose next one costs least
    3  each row is what stays of it, moved at once:  w <- w - H^-1_:P ([H^-1]_PP)^-1 w_P

P the columns a row loses, H = 2 X^T X, X what the layer reads. Rows share H and do not touch each
other, so this is optimal brain surgeon on the whole layer, one weight at a time.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.card import Card
from impls.compression._greedy import Trace, greedy
from impls.compression._hessian import check_damp, damped, inverse
from impls.compression._pruning import PruningOptions, lowest
from impls.compression._together import without
from impls.compression.interface import LayerStatistics, Need, Parts

CARD = Card(
    cls="OBC",
    title="Optimal brain compression (pruning)",
    paper="arXiv:2208.11580",
    year=2022,
    summary="Exact greedy removal over a whole layer, merged from the loss traces of its rows.",
    oracle="identity: optimal brain surgeon, one weight at a time over all rows",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class OBC(PruningOptions):
    """Layer-wise optimal brain surgeon, one weight at a time."""

    damp: float = 0.01  # added to the diagonal of H, in shares of its mean

    def __post_init__(self) -> None:
        PruningOptions.__post_init__(self)
        check_damp(self.damp)
        if self.pattern:
            raise ValueError(
                f"pattern {self.pattern!r} fixes what each row loses, so OBC has nothing to "
                "choose: take ExactOBS"
            )

    @property
    def needs(self) -> frozenset[Need]:
        """The Hessian."""
        return frozenset({"hessian"})

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """What stays of the layer, moved to make up for the rest.

        Raises:
            ValueError: if the damped Hessian is singular.
        """
        matrix, dead = damped(statistics.hessian, self.damp)
        weight, left = weight.masked_fill(dead, 0.0), inverse(matrix)
        columns = weight.shape[1]
        removed = merged(greedy(weight, left, n=columns, period=columns), self.sparsity)
        return self.stored(without(weight, left, removed), removed)


def merged(trace: Trace, share: float) -> Tensor:
    """Which weights go if the cheapest next removal of all rows is always taken, (R, C) bool.

    A row's cheap removal behind a dear one waits for it and follows at once: all are taken in the
    order of the highest loss up to them.
    """
    reached = trace.losses.cummax(dim=1).values
    taken = lowest(reached, share, reached.numel())
    return torch.zeros_like(taken).scatter_(1, trace.places, taken)
