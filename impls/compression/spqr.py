"""SpQR: GPTQ in tiny groups with scales of few bits; weights that rounding would hurt stay apart.

    s_j = E(group) - E(group without w_j),      E = sum_k (w_k - w^_k)^2 / (2 U_kk^2)
    w^_j = w_j in float16 if s_j >= tau, else s (q - z) with s and z of three bits themselves

E is the error of a group under the range of its own weights, weighed by what the rest of the row
cannot make up for, U^T U = H^-1 as in GPTQ, whose column loop this is. s_j is what keeping w_j
saves of the layer's squared output error; tau is that of one token, or what the wanted share of the
weights given exceeds.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.card import Card
from impls.compression._bilevel import BilevelWeight, Levels, Rounded, rounded
from impls.compression._columns import Settle, settled
from impls.compression._grid import Grid
from impls.compression._hessian import check_damp, damped, upper_factor
from impls.compression._outliers import OutlierWeight
from impls.compression.interface import LayerCompression, LayerStatistics, Need, Parts

CARD = Card(
    cls="SpQR",
    title="SpQR",
    paper="arXiv:2306.03078",
    year=2023,
    summary="Keeps the most sensitive weights in float16; groups of 16 with scales of 3 bits.",
    oracle="identity: without outliers GPTQ with the same scales; with all of them float16",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpQR(LayerCompression):
    """Sparse-quantized representation."""

    bits: int = 3
    group: int = 16  # neighbours in a row of one scale
    scale_bits: int = 3
    zero_bits: int = 3
    range_rows: int = 16  # rows whose scales share a range
    outliers: float = 0.01  # share of the weights to keep, about
    threshold: float | None = None  # tau for one token, in place of the share
    damp: float = 0.01  # added to the diagonal of H, in shares of its mean
    block: int = 128  # columns whose errors reach the rest in one product; changes time only

    def __post_init__(self) -> None:
        Grid(bits=self.bits, group=self.group)  # checks its numbers
        check_damp(self.damp)
        for name in ("scale_bits", "zero_bits"):
            if not 2 <= getattr(self, name) <= 8:
                raise ValueError(f"{name} must be from 2 to 8, got {getattr(self, name)}")
        for name in ("range_rows", "block"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.outliers <= 1:
            raise ValueError(f"outliers is a share, from 0 to 1, got {self.outliers}")
        if self.threshold is not None and not self.threshold >= 0:
            raise ValueError(f"threshold must be at least 0, got {self.threshold}")

    @property
    def needs(self) -> frozenset[Need]:
        """The Hessian."""
        return frozenset({"hessian"})

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """Codes and outliers.

        Raises:
            ValueError: if groups do not divide the rows, the damped Hessian is singular, or a
                weight is too large for float16.
        """
        Grid(group=self.group).raster(*weight.shape)  # groups divide the rows
        matrix, dead = damped(statistics.hessian, self.damp)
        weight, factor = weight.masked_fill(dead, 0.0), upper_factor(matrix)
        pivots = factor.diagonal().square().float()  # of H^-1 of the columns that are left
        bound = self._bound(weight, pivots, statistics.n_tokens)
        masks: list[Tensor] = []
        scales: list[Rounded] = []
        zeros: list[Rounded] = []

        def enter(first: int, group: Tensor) -> Settle:
            saved = sensitivity(group, pivots[first : first + self.group], self.bits)
            mask = saved >= bound
            scale, zero = fitted(group.masked_fill(mask, 0.0), self.bits)
            scales.append(rounded(scale[:, None], bits=self.scale_bits, run=self.range_rows))
            zeros.append(rounded(zero[:, None], bits=self.zero_bits, run=self.range_rows))
            masks.append(mask)
            levels = Levels(scales[-1].values(), zeros[-1].values(), self.bits)

            def settle(place: int, column: Tensor) -> Tensor:
                level = levels.values(levels.codes(column[:, None]))[:, 0]
                return torch.where(mask[:, place], column.half().float(), level)

            return settle

        final = settled(weight, factor, enter, step=self.group, block=self.block)
        return Parts(self._stored(final, torch.cat(masks, 1), _joined(scales), _joined(zeros)))

    def _bound(self, weight: Tensor, pivots: Tensor, n_tokens: int) -> float:
        """The sensitivity from which a weight is kept."""
        if self.threshold is not None:
            return self.threshold * n_tokens
        n_kept = round(self.outliers * weight.numel())
        if n_kept in {0, weight.numel()}:
            return 0.0 if n_kept else torch.inf
        shape = (len(weight), -1, self.group)
        saved = sensitivity(weight.view(shape), pivots.view(shape[1:]), self.bits).flatten()
        least = saved.kthvalue(len(saved) - n_kept + 1).values
        return max(float(least), torch.finfo(torch.float32).tiny)  # 0 would keep all

    def _stored(
        self, final: Tensor, mask: Tensor, scales: Rounded, zeros: Rounded
    ) -> OutlierWeight:
        levels = Levels(scales.values(), zeros.values(), self.bits)
        bits = (self.bits, self.scale_bits, self.zero_bits)
        codes = levels.codes(final.masked_fill(mask, 0.0))
        return OutlierWeight(BilevelWeight(codes, scales, zeros, bits=bits), final, mask)


def fitted(group: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Scale and zero point of groups (..., n) by their range, 0 included; (...) float32 each."""
    return _between(group.amin(-1), group.amax(-1), bits)


def sensitivity(group: Tensor, pivots: Tensor, bits: int) -> Tensor:
    """How much less groups err, each weighed by 1 / (2 U_kk^2), if one weight is left out.

    Only a weight at an end of the range changes it; any other one saves what it errs itself. At
    least 0: a range that fits the others worse for being smaller is chance.

    Args:
        group: (..., n), n at least 2.
        pivots: U_kk^2, (n,) or what broadcasts to `group`.
        bits: of a code.
    """
    (low, lowest), (high, highest) = group.min(-1), group.max(-1)
    errors = _errors(group, low, high, pivots, bits)
    total = errors.sum(-1)
    saved = errors.clone()
    second_low = group.scatter(-1, lowest[..., None], torch.inf).amin(-1)
    second_high = group.scatter(-1, highest[..., None], -torch.inf).amax(-1)
    for place, ends in ((lowest, (second_low, high)), (highest, (low, second_high))):
        others = _errors(group, *ends, pivots, bits).scatter(-1, place[..., None], 0.0)
        saved.scatter_(-1, place[..., None], (total - others.sum(-1))[..., None])
    return saved.clamp(min=0)


def _errors(group: Tensor, low: Tensor, high: Tensor, pivots: Tensor, bits: int) -> Tensor:
    """(w - w^)^2 / (2 U^2) of each weight under a range."""
    scale, zero = (x[..., None] for x in _between(low, high, bits))
    codes = (group / scale + zero).round().clamp(0, 2**bits - 1)
    return ((codes - zero) * scale - group).square() / (2 * pivots)


def _between(low: Tensor, high: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale > 0, scale, torch.finfo(torch.float32).tiny)
    return scale, -low / scale


def _joined(groups: list[Rounded]) -> Rounded:
    """The scales of all groups from those of each column of groups."""
    codes = torch.cat([group.codes for group in groups], 1)
    return Rounded(codes, torch.cat([group.ends for group in groups], 2), groups[0].run)
