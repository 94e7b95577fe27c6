"""LLM.int8(): products of 8-bit rows and columns, but for the few channels with outliers.

    Y = (s_x s_w / 127^2) Q_x Q_w^T + X_O W_O^T,      O = {j : |X_j| >= 6 anywhere}

s the largest number of a token and of an output row. The channels of O are found anew in each call
(`batch`, the paper), so a token's result depends on its neighbours, and their weights are read from
the 8-bit codes, as in the authors' library; or they are those of calibration (`calibration`), their
weights kept in float16 and left out of the rows' largest number. Products of O have x's own dtype.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.card import Card
from impls.compression._grid import Grid
from impls.compression._integer import IntegerWeight
from impls.compression._mixed import MixedRounding
from impls.compression._split import SplitWeight
from impls.compression.interface import LayerCompression, LayerStatistics, Need, Parts

CARD = Card(
    cls="LLMInt8",
    title="LLM.int8()",
    paper="arXiv:2208.07339",
    year=2022,
    summary="8-bit products of tokens and rows; input channels with outliers stay in 16 bits.",
    oracle="bitsandbytes' Linear8bitLt: equal codes, outputs equal to float16",
    exact=False,
)
TOKENS = Grid(bits=8, symmetric=True, granularity="token", scale_dtype="float32")
ROWS = Grid(bits=8, symmetric=True, granularity="channel", scale_dtype="float32")


@dataclass(frozen=True, kw_only=True, slots=True)
class LLMInt8(LayerCompression):
    """Vector-wise 8 bits with a decomposition of outliers."""

    threshold: float = 6.0  # 0: no channel stays apart
    outliers_by: Literal["batch", "calibration"] = "batch"  # what tells which channels do

    def __post_init__(self) -> None:
        if self.threshold < 0:
            raise ValueError(f"threshold must be at least 0, got {self.threshold}")

    @property
    def needs(self) -> frozenset[Need]:
        """The largest input of each channel, where calibration tells which stay apart."""
        return frozenset({"absmax"} if self.outliers_by == "calibration" else ())

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """Codes row by row, with or without columns apart, and the rounding beside them."""
        if self.outliers_by == "batch":
            return Parts(by_rows(weight), MixedRounding(TOKENS, self.threshold))
        mask = torch.zeros(weight.shape[1], dtype=torch.bool, device=weight.device)
        if self.threshold:
            mask = statistics.absmax >= self.threshold
        apart = mask.nonzero()[:, 0]
        stored = SplitWeight(by_rows(weight[:, ~mask]), apart, weight[:, mask])
        return Parts(stored, MixedRounding(TOKENS, self.threshold, apart))


def by_rows(weight: Tensor) -> IntegerWeight:
    """A weight (R, C) in 8 bits, one scale a row; C may be 0."""
    nothing = weight.new_zeros(len(weight), 1)
    affine = ROWS.fit(weight) if weight.numel() else ROWS.between(nothing, nothing)
    return IntegerWeight(affine.codes(weight), affine, bits=8, scale_dtype="float32")
