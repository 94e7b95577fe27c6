"""OBQ: each row rounds the weight that costs least next; those left make up for its error.

    p = argmin_p (q(w_p) - w_p)^2 / H^-1_pp,      w <- w - (w_p - q(w_p)) / H^-1_pp  H^-1_:p
    H^-1 <- H^-1 - H^-1_:p H^-1_p: / H^-1_pp,     H = 2 X^T X + damping

q rounds to the nearest level; a weight that has come to lie beyond the outermost level, more than
half a step from any, goes first. Every row has its own order, so its own H^-1 (C, C): R C^3 work
for R rows of C columns, which GPTQ's one order saves. The downdates are kept as the columns v_k
that they take off, H^-1 - sum_k v_k v_k^T: a Cholesky factor whose pivots the row chooses.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.card import Card
from impls.compression._grid import Affine
from impls.compression._hessian import check_damp, damped, inverse
from impls.compression._integer import IntegerWeight
from impls.compression._options import WeightAndInputOptions
from impls.compression.interface import LayerStatistics, Need, Parts

CARD = Card(
    cls="OBQ",
    title="OBQ",
    paper="arXiv:2208.11580",
    year=2022,
    summary="Rounds each row's cheapest weight next and updates the rest, by exact downdates.",
    oracle="identity: one row at a time with explicit downdates of the inverse Hessian",
    exact=False,
)

CHUNK = 2**28  # bytes of downdates held at once: rows that go together
BEYOND = 0.5 + 1e-5  # steps from the nearest level, more than float32's rounding of a half


@dataclass(frozen=True, kw_only=True, slots=True)
class OBQ(WeightAndInputOptions):
    """Optimal brain quantization."""

    damp: float = 0.01  # added to the diagonal of H, in shares of its mean

    def __post_init__(self) -> None:
        WeightAndInputOptions.__post_init__(self)
        check_damp(self.damp)

    @property
    def needs(self) -> frozenset[Need]:
        """The Hessian, and what rounding of the input wants."""
        return WeightAndInputOptions.needs.fget(self) | {"hessian"}

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """The rounded weight, its scales as of the weight given, and the rounding of the input.

        Raises:
            ValueError: if groups do not divide the rows, or the damped Hessian is singular.
        """
        matrix, dead = damped(statistics.hessian, self.damp)
        weight = weight.masked_fill(dead, 0.0)
        affine, left = self.grid.fit(weight), inverse(matrix)
        n_rows = max(1, CHUNK // left.nbytes)
        chunks = [
            greedy(weight[start : start + n_rows], left, _rows(affine, start, start + n_rows))
            for start in range(0, len(weight), n_rows)
        ]
        codes = affine.codes(torch.cat(chunks))
        stored = IntegerWeight(codes, affine, bits=self.bits, scale_dtype=self.scale_dtype)
        return Parts(stored, self.rounding(statistics))


def greedy(weight: Tensor, inverse: Tensor, affine: Affine) -> Tensor:
    """Rows (R, C) rounded in an order of their own, float64.

    Args:
        weight: (R, C).
        inverse: H^-1, (C, C) float64.
        affine: the levels of these rows.
    """
    w, (n_rows, n_columns) = weight.double(), weight.shape
    rows = torch.arange(n_rows, device=w.device)
    steps = affine.scale.repeat_interleave(n_columns // affine.scale.shape[1], dim=1)
    taken = w.new_empty(n_rows, n_columns, n_columns)  # v_k, (R, k, C)
    pivots = inverse.diagonal().repeat(n_rows, 1)
    free = torch.ones_like(w, dtype=torch.bool)
    for k in range(n_columns):
        levels = affine.rounded(w).double()
        place = _next(w - levels, pivots, steps, free)
        weights = taken[rows, :k, place]  # (R, k)
        column = inverse[place] - torch.bmm(weights[:, None], taken[:, :k])[:, 0]
        column = torch.where(free, column, 0.0)
        pivot = column[rows, place][:, None]
        error = (w - levels)[rows, place][:, None]
        w -= error / pivot * column
        w[rows, place] = levels[rows, place]
        free[rows, place] = False
        taken[:, k] = column / pivot.sqrt()
        pivots -= taken[:, k].square()
    return w


def _next(error: Tensor, pivots: Tensor, steps: Tensor, free: Tensor) -> Tensor:
    """The column that each row rounds next, (R,) int64: outliers first, then the cheapest."""
    cost = torch.where(free, error.square() / pivots, torch.inf)
    outlier = free & (error.abs() > BEYOND * steps)
    first = outlier.any(1, keepdim=True)
    return torch.where(first & ~outlier, torch.inf, cost).argmin(1)


def _rows(affine: Affine, start: int, stop: int) -> Affine:
    """The scales of some rows."""
    if len(affine.scale) == 1:
        return affine
    return Affine(affine.scale[start:stop], affine.zero[start:stop], affine.low, affine.high)
