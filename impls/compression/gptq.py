"""GPTQ: rounds columns in one fixed order for all rows; later columns make up for each error.

    w^_i = s (clamp(round(w_i / s) + z, 0, 2^b - 1) - z),      e = (w_i - w^_i) / U_ii
    w_j <- w_j - e U_ij for j > i,     (H + damp mean(diag H) I)^-1 = U^T U,     H = 2 X^T X

w_i column i of the weight, s and z scale and zero point of its group, b bits, X what the layer
reads. A group's range is that of its weights as updated when it is reached, or that of the weights
given (`static_groups`). With `act_order` columns of large H_ii go first; groups that are not static
are of neighbours in that order then, and the order is stored. Columns that calibration never
touched become 0.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.card import Card
from impls.compression._columns import Settle, settled
from impls.compression._grid import Affine
from impls.compression._hessian import check_damp, damped, upper_factor
from impls.compression._inputs import ColumnOrder
from impls.compression._integer import IntegerWeight
from impls.compression._options import WeightAndInputOptions
from impls.compression.interface import LayerStatistics, Need, Parts

CARD = Card(
    cls="GPTQ",
    title="GPTQ",
    paper="arXiv:2210.17323",
    year=2022,
    summary="Rounds columns in a fixed order; those still to come make up for each error.",
    oracle="identity: exact downdates in the same order; llm-compressor's codes",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class GPTQ(WeightAndInputOptions):
    """Post-training quantization by approximate second-order information."""

    damp: float = 0.01  # added to the diagonal of H, in shares of its mean
    block: int = 128  # columns whose errors reach the rest in one product; changes time only
    act_order: bool = False
    static_groups: bool = False

    def __post_init__(self) -> None:
        WeightAndInputOptions.__post_init__(self)
        check_damp(self.damp)
        if self.block < 1:
            raise ValueError(f"block must be at least 1, got {self.block}")

    @property
    def needs(self) -> frozenset[Need]:
        """The Hessian, and what rounding of the input wants."""
        return WeightAndInputOptions.needs.fget(self) | {"hessian"}

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """The rounded weight, the rounding of the input, and the columns' order if groups need it.

        Raises:
            ValueError: if groups do not divide the rows, or the damped Hessian is singular.
        """
        matrix, dead = damped(statistics.hessian, self.damp)
        weight = weight.masked_fill(dead, 0.0)
        _, n_groups = self.grid.raster(*weight.shape)
        order = _largest_first(matrix) if self.act_order else slice(None)
        factor = upper_factor(matrix[order][:, order])
        affine, rounded = self._rounded(weight, factor, order, n_groups)
        input_map = None
        if self.act_order and n_groups > 1 and not self.static_groups:
            input_map = ColumnOrder(order)
        elif self.act_order:
            rounded = rounded[:, torch.argsort(order)]
        codes = affine.codes(rounded)
        stored = IntegerWeight(codes, affine, bits=self.bits, scale_dtype=self.scale_dtype)
        return Parts(stored, self.rounding(statistics), input_map)

    def _rounded(
        self, weight: Tensor, factor: Tensor, order: Tensor | slice, n_groups: int
    ) -> tuple[Affine, Tensor]:
        """Scales of all groups, and the rounded weight with its columns in order."""
        grid, width = self.grid, weight.shape[1] // n_groups
        static = grid.fit(weight) if self.static_groups else None
        columns = torch.arange(weight.shape[1], device=weight.device)[order]
        group_of = (columns // width).tolist()
        fitted: list[Affine] = []

        def enter(first: int, group: Tensor) -> Settle:
            if static is None:
                affine = grid.fit(group)
                fitted.append(affine)
            else:
                affine = static.columns(group_of[first], group_of[first] + 1)
            return _nearest(affine)

        step = width if static is None else 1
        rounded = settled(weight[:, order], factor, enter, step=step, block=self.block)
        return static or _side_by_side(fitted), rounded


def _nearest(affine: Affine) -> Settle:
    """What `affine.rounded` does, for columns of one group; that takes twice as long."""
    scale, zero = affine.scale[:, 0], affine.zero[:, 0]
    steps = 1 / scale

    def settle(_: int, column: Tensor) -> Tensor:
        codes = (column * steps).round_().add_(zero).clamp_(affine.low, affine.high)
        return codes.sub_(zero).mul_(scale)

    return settle


def _largest_first(matrix: Tensor) -> Tensor:
    """Which column goes at each turn, by the diagonal, (C,) int64."""
    return torch.argsort(matrix.diagonal(), descending=True, stable=True)


def _side_by_side(groups: list[Affine]) -> Affine:
    """The scales of a weight from those of its groups of columns."""
    scale, zero = (torch.cat([getattr(g, name) for g in groups], 1) for name in ("scale", "zero"))
    return Affine(scale, zero, groups[0].low, groups[0].high)
