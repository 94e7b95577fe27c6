"""ExactOBS: each row loses its weights one at a time, by its own exactly updated inverse Hessian.

    p = argmin w_p^2 / (2 [H^-1]_pp),      w <- w - w_p / [H^-1]_pp H^-1_:p
    H^-1 <- H^-1 - H^-1_:p H^-1_p: / [H^-1]_pp,      H = 2 X^T X

w a row of the weight, p one of its columns, X what the layer reads. Every row loses the same share;
under N:M a group that has lost its own is passed over.
"""

from dataclasses import dataclass

from torch import Tensor

from harness.card import Card
from impls.compression._greedy import greedy
from impls.compression._hessian import check_damp, damped, inverse
from impls.compression._pruning import PruningOptions
from impls.compression.interface import LayerStatistics, Need, Parts

CARD = Card(
    cls="ExactOBS",
    title="ExactOBS",
    paper="arXiv:2208.11580",
    year=2022,
    summary="Removes each row's weights one by one, by exact downdates of its inverse Hessian.",
    oracle="identity: the least-squares refit on the same mask",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactOBS(PruningOptions):
    """Row-wise optimal brain surgeon, one weight at a time."""

    damp: float = 0.01  # added to the diagonal of H, in shares of its mean

    def __post_init__(self) -> None:
        PruningOptions.__post_init__(self)
        check_damp(self.damp)

    @property
    def needs(self) -> frozenset[Need]:
        """The Hessian."""
        return frozenset({"hessian"})

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """What stays of each row, moved to make up for the rest.

        Raises:
            ValueError: if the pattern does not divide the rows, or the damped Hessian is singular.
        """
        matrix, dead = damped(statistics.hessian, self.damp)
        period = self.period(weight.shape[1])
        n = round(self.sparsity * period)
        trace = greedy(weight.masked_fill(dead, 0.0), inverse(matrix), n=n, period=period)
        return self.stored(trace.weight, trace.removed())
