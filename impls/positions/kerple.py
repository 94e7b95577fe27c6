"""KERPLE: scores fall with the distance as a conditionally positive definite kernel.

    s_ij = q_i . k_j / sqrt(d) - r_1 log(1 + r_2 |i - j|)      logarithmic, r_1, r_2 > 0
    s_ij = q_i . k_j / sqrt(d) - r_1 |i - j|^{r_2}             power, r_1 > 0, 0 < r_2 <= 2

i, j positions; r_1, r_2 learned for each head, shared by the layers.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.card import Card
from impls.positions._bias import DistanceBias
from impls.positions.interface import LayerShape, PositionRecipe

CARD = Card(
    cls="KERPLE",
    title="KERPLE",
    paper="arXiv:2205.09921",
    year=2022,
    summary="Learned kernels of the distance, logarithmic or a power, are subtracted from scores.",
    oracle="power with r_2 = 1 is ALiBi; centred Gram matrices are positive semidefinite",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class KERPLE(PositionRecipe):
    """Kernelized relative positional embedding."""

    kernel: Literal["log", "power"] = "log"

    injected_at: ClassVar = ("score",)
    depends_on: ClassVar = "relative"

    def build(self, shape: LayerShape) -> "KERPLEEncoding":
        """The kernel with two parameters a head."""
        return KERPLEEncoding(shape, self.kernel)


class KERPLEEncoding(DistanceBias):
    """A kernel, the same in every layer."""

    def __init__(self, shape: LayerShape, kernel: Literal["log", "power"]) -> None:
        super().__init__(shape)
        self.kernel = kernel
        self.raw = nn.Parameter(torch.empty(2, shape.n_heads))
        # Drawn as in the released code: r_1 below 2 and r_2 below 1; the other way for powers.
        r_1, r_2 = torch.rand(2, shape.n_heads)
        self.set_rates(2 * r_1, r_2) if kernel == "log" else self.set_rates(r_1, 2 * r_2)

    def rates(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """r_1 and r_2, (H,): positive by a softplus; a power's r_2 below 2 by a sigmoid."""
        raw_1, raw_2 = self.raw.to(dtype)
        r_2 = F.softplus(raw_2) if self.kernel == "log" else 2 * raw_2.sigmoid()
        return F.softplus(raw_1), r_2

    @torch.no_grad()
    def set_rates(self, r_1: Tensor, r_2: Tensor) -> None:
        """Make r_1 and r_2, (H,), the parameters; they are kept off the ends of their ranges."""
        r_1, r_2 = r_1.clamp(min=1e-4), r_2.clamp(min=1e-4)
        power = self.kernel == "power"
        self.raw[0] = softplus_inverse(r_1)
        self.raw[1] = (r_2.clamp(max=2 - 1e-4) / 2).logit() if power else softplus_inverse(r_2)

    def of_distance(self, h: Tensor, distance: Tensor, dtype: torch.dtype) -> Tensor:
        """-r_1 log(1 + r_2 |i - j|) or -r_1 |i - j|^{r_2}."""
        r_1, r_2 = (r[h] for r in self.rates(dtype))
        n = distance.abs().to(dtype)
        return -r_1 * (torch.log1p(r_2 * n) if self.kernel == "log" else n**r_2)


def softplus_inverse(y: Tensor) -> Tensor:
    """Solve y = log(1 + e^x) for x, y > 0."""
    return y + torch.log(-torch.expm1(-y))
