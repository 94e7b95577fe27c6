"""A histogram of a stream whose range nobody knows beforehand, and ranges read from it.

Bins are of equal width around 0; where a number falls outside, the width doubles and neighbours
merge, which loses nothing but resolution.
"""

import torch
from torch import Tensor

from impls.compression._grid import SHRINKS, Grid

BINS = 4096  # of the whole range, half of them below 0


class Histogram:
    """Counts of numbers from -bound to bound, with the exact extremes."""

    def __init__(self) -> None:
        self.counts = torch.zeros(BINS, dtype=torch.float64)
        self.bound = 0.0  # a power of two, once there is a number
        self.low, self.high = torch.inf, -torch.inf

    def add(self, x: Tensor) -> None:
        """Take in all numbers of x."""
        self.low = min(self.low, float(x.min()))
        self.high = max(self.high, float(x.max()))
        self._widen(max(abs(self.low), abs(self.high)))
        new = torch.histc(x.float().flatten(), BINS, min=-self.bound, max=self.bound)
        self.counts += new.double().cpu()

    def bounds(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """The range of a grid's rule: low and high, scalars float32."""
        low, high = self.low, self.high
        if grid.range == "percentile":
            low, high = self._percentile(grid)
        if grid.range == "mse":
            share = self._least_error(grid)
            low, high = low * share, high * share
        return torch.tensor(low), torch.tensor(high)

    def _widen(self, needed: float) -> None:
        if self.bound == 0.0:
            self.bound = 2.0 ** torch.tensor(max(needed, 2.0**-100)).log2().ceil().item()
        while self.bound < needed:
            inner = self.counts.view(-1, 2).sum(1)
            self.counts = torch.zeros_like(self.counts)
            self.counts[BINS // 4 : 3 * BINS // 4] = inner
            self.bound *= 2

    def _centres(self) -> Tensor:
        width = 2 * self.bound / BINS
        return -self.bound + width * (torch.arange(BINS, dtype=torch.float64) + 0.5)

    def _percentile(self, grid: Grid) -> tuple[float, float]:
        """The bounds that hold so many percent, to a bin."""
        outside = 1 - grid.percentile / 100
        share = self.counts.cumsum(0) / self.counts.sum()
        if grid.symmetric:
            both = self.counts[BINS // 2 :] + self.counts[: BINS // 2].flip(0)
            place = int(torch.searchsorted(both.cumsum(0) / both.sum(), 1 - outside))
            bound = min((place + 1) * 2 * self.bound / BINS, max(-self.low, self.high))
            return -bound, bound
        edges = torch.linspace(-self.bound, self.bound, BINS + 1, dtype=torch.float64)
        first = int(torch.searchsorted(share, outside / 2))
        last = int(torch.searchsorted(share, 1 - outside / 2))
        return max(float(edges[first]), self.low), min(float(edges[last + 1]), self.high)

    def _least_error(self, grid: Grid) -> float:
        """The share of the range under which rounding the bins' centres errs least in square."""
        centres, errors = self._centres(), []
        shares = [1 - step / SHRINKS for step in range(SHRINKS)]
        for share in shares:
            low, high = (torch.tensor([[bound * share]]) for bound in (self.low, self.high))
            rounded = grid.between(low, high).rounded(centres[None]).double()
            errors.append(float((self.counts * (rounded - centres).square()).sum()))
        return shares[errors.index(min(errors))]
