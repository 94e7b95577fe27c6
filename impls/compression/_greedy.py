"""Exact greedy removal: each row loses, one by one, the weight whose loss costs least.

    p = argmin w_p^2 / (2 [H^-1]_pp),      w <- w - w_p / [H^-1]_pp H^-1_:p
    H^-1 <- H^-1 - u u^T,      u = H^-1_:p / sqrt([H^-1]_pp)                    (arXiv:2208.11580)

Only the diagonal and one column of H^-1 are read at a time, so a row keeps its vectors u and takes
them off H^-1 together, by one product, after `ROUND` removals; removed columns leave the arrays
then. That is a Cholesky factorization of H^-1 whose pivots the losses choose: R rows, C columns and
k removals cost about R C^2 k multiplications, and memory for the H^-1 of a few rows.
"""

from typing import NamedTuple

import torch
from torch import Tensor

ROUND = 128  # removals whose vectors are taken off H^-1 by one product
AT_ONCE = 2**28  # bytes of the rows' inverses that are held


class Trace(NamedTuple):
    """What rows lost, in order.

    Attributes:
        weight: what is left, (R, C) float64; 0 where removed.
        places: the columns in order of removal, (R, n) int64.
        losses: what each removal added to (w - w^)^T H (w - w^) / 2, (R, n) float64.
    """

    weight: Tensor
    places: Tensor
    losses: Tensor

    def removed(self) -> Tensor:
        """Which places are empty, (R, C) bool."""
        marked = torch.zeros_like(self.weight, dtype=torch.bool)
        return marked.scatter_(1, self.places, value=True)


def greedy(weight: Tensor, inverse: Tensor, *, n: int, period: int) -> Trace:
    """Remove n weights of every `period` neighbours of each row.

    Args:
        weight: (R, C).
        inverse: H^-1, (C, C) float64.
        n: at most `period`.
        period: a divisor of C.
    """
    columns = len(inverse)
    rows = max(1, AT_ONCE // (inverse.element_size() * columns**2))
    traces = [_greedy(part, inverse, n, period) for part in weight.double().split(rows)]
    return Trace(*(torch.cat(found) for found in zip(*traces, strict=True)))


def _greedy(weight: Tensor, inverse: Tensor, n: int, period: int) -> Trace:
    """The trace of some rows; their columns are `at`, fewer after each round."""
    rows, columns = weight.shape
    final = torch.zeros_like(weight)
    at = torch.arange(columns, device=weight.device).expand(rows, -1)
    quota = torch.full((rows, columns // period), n, device=weight.device)
    places, losses = at[:, :0], weight[:, :0]
    while places.shape[1] < n * quota.shape[1]:
        todo = n * quota.shape[1] - places.shape[1]
        weight, vectors, gone, lost = _round(weight, inverse, quota, at // period, min(todo, ROUND))
        places = torch.cat((places, at.gather(1, gone)), dim=1)
        losses = torch.cat((losses, lost), dim=1)
        stay = torch.ones_like(weight, dtype=torch.bool).scatter_(1, gone, value=False)
        stay = stay.nonzero()[:, 1].view(rows, -1)
        weight, at = weight.gather(1, stay), at.gather(1, stay)
        inverse = _without(inverse, vectors, stay)
    return Trace(final.scatter_(1, at, weight), places, losses)


def _round(
    weight: Tensor, inverse: Tensor, quota: Tensor, group: Tensor, n: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The next n removals of each row: weights, vectors u (R, n, c), places and losses (R, n).

    `quota`, what each group of a row may still lose, is counted down.
    """
    rows = torch.arange(len(weight), device=weight.device)
    left = inverse.diagonal(dim1=-2, dim2=-1).expand_as(weight).clone()
    vectors = weight.new_empty(len(weight), n, weight.shape[1])
    gone = torch.zeros_like(weight, dtype=torch.bool)
    places, losses = [], []
    for k in range(n):
        cost = weight.square() / left / 2
        cost.masked_fill_(gone | (quota.gather(1, group) == 0), torch.inf)
        p = cost.argmin(1)
        column = inverse[p] if inverse.ndim == 2 else inverse[rows, p]
        taken = vectors[rows, :k, p][:, None]  # (R, 1, k)
        column = torch.baddbmm(column[:, None], taken, vectors[:, :k], alpha=-1)[:, 0]
        pivot = column[rows, p][:, None]
        weight = weight - column * (weight[rows, p][:, None] / pivot)
        torch.mul(column, pivot.rsqrt(), out=vectors[:, k])
        left -= vectors[:, k].square()
        gone[rows, p] = True
        quota[rows, group[rows, p]] -= 1
        places.append(p)
        losses.append(cost[rows, p])
    return weight, vectors, torch.stack(places, 1), torch.stack(losses, 1)


def _without(inverse: Tensor, vectors: Tensor, stay: Tensor) -> Tensor:
    """The inverses of the columns that stay, (R, c, c)."""
    rows = inverse if inverse.ndim == 3 else inverse.expand(len(stay), -1, -1)
    left = torch.stack([one[at][:, at] for one, at in zip(rows, stay, strict=True)])
    vectors = vectors.gather(2, stay[:, None].expand(-1, vectors.shape[1], -1))
    return left.baddbmm_(vectors.mT, vectors, alpha=-1)
