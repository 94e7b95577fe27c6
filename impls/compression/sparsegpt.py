"""SparseGPT: one pass over the columns, the same inverse Hessians for all rows.

    s_ij = w_ij^2 / U_jj^2,      H^-1 = U^T U,      H = 2 X^T X
    for j:  e = w_j where removed, else 0, over U_jj;      w_k <- w_k - e U_jk for k > j

w_j column j of the weight, X what the layer reads. Of each block of columns the lowest saliencies
of all rows go, as the weights stand when the block is reached; under N:M, of each group. Columns to
come make up for what goes: row j of U is H^-1's once the columns before j are settled. With
`value_bits` what stays is rounded in the same pass, and they make up for that too.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.card import Card
from impls.compression._columns import Settle, settled
from impls.compression._grid import Affine, Grid
from impls.compression._hessian import check_damp, damped, upper_factor
from impls.compression._pruning import PruningOptions, lowest
from impls.compression._sparse_integer import SparseIntegerWeight
from impls.compression.interface import LayerStatistics, Need, Parts

CARD = Card(
    cls="SparseGPT",
    title="SparseGPT",
    paper="arXiv:2301.00774",
    year=2023,
    summary="Removes weights column by column; the columns to come make up for them.",
    oracle="identity: least squares column by column; llm-compressor's masks and weights",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseGPT(PruningOptions):
    """Pruning in one pass with one factor for all rows."""

    damp: float = 0.01  # added to the diagonal of H, in shares of its mean
    block: int = 128  # columns that are compared with each other, all rows together
    value_bits: int | None = None  # what stays is rounded as it is passed; None: value_dtype

    def __post_init__(self) -> None:
        PruningOptions.__post_init__(self)
        check_damp(self.damp)
        if self.value_bits is not None and not 2 <= self.value_bits <= 8:
            raise ValueError(f"value_bits must be from 2 to 8, or None, got {self.value_bits}")
        if self.block < 1:
            raise ValueError(f"block must be at least 1, got {self.block}")

    @property
    def needs(self) -> frozenset[Need]:
        """The Hessian."""
        return frozenset({"hessian"})

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """What stays, moved to make up for what went before it.

        Raises:
            ValueError: if the pattern does not divide the rows, or the damped Hessian is singular.
        """
        matrix, dead = damped(statistics.hessian, self.damp)
        weight, factor = weight.double().masked_fill(dead, 0.0), upper_factor(matrix)
        period = self.period(weight.shape[1])
        step = period if self.pattern else self.block
        affine = self._affine(weight)
        removed: list[Tensor] = []

        def enter(first: int, columns: Tensor) -> Settle:
            diagonal = factor.diagonal()[first : first + columns.shape[1]]
            gone = self._removed((columns / diagonal).square(), first)
            removed.append(gone)

            def settle(place: int, column: Tensor) -> Tensor:
                kept = column if affine is None else affine.rounded(column[:, None])[:, 0]
                return kept.masked_fill(gone[:, place], 0.0)

            return settle

        pruned = settled(weight, factor, enter, step=step, block=self.block)
        everywhere = torch.cat(removed, dim=1)
        if affine is None:
            return self.stored(pruned, everywhere)
        codes = affine.codes(pruned)
        return Parts(SparseIntegerWeight(codes, affine, everywhere, bits=self.value_bits))

    def _affine(self, weight: Tensor) -> Affine | None:
        """What kept numbers are rounded to, one scale and zero point a row; None: nothing."""
        if self.value_bits is None:
            return None
        return Grid(bits=self.value_bits, granularity="channel").fit(weight)

    def _removed(self, saliency: Tensor, first: int) -> Tensor:
        """Which of a block go, so that with the blocks before it the share is exact."""
        rows, columns = saliency.shape
        if self.pattern:
            return lowest(saliency, self.sparsity, columns)
        before, after = (round(self.sparsity * rows * n) for n in (first, first + columns))
        return lowest(saliency, (after - before) / saliency.numel(), saliency.numel())
