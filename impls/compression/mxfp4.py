"""MXFP4: weights as 4-bit floating-point numbers over a power of two for each 32 of a row.

    s = 2^(floor(log2 max |w|) - 2),    w^ = s round(w / s)

w weight, s scale of a group; round to the nearest of ±{0, 0.5, 1, 1.5, 2, 3, 4, 6}, to the even
code of two equally near, what is beyond 6 to 6. A scale is an exponent of 8 bits alone: 4.25 bits a
weight. Elements E2M1, scales E8M0 and groups of 32 are those of the OCP Microscaling Formats
specification 1.0, section 6.3.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.card import Card
from impls.compression._codebook import CodebookWeight, grouped, table
from impls.compression.interface import LayerCompression, LayerStatistics, Parts

CARD = Card(
    cls="MXFP4",
    title="MXFP4, microscaling",
    paper="arXiv:2310.10537",
    year=2023,
    summary="Rounds weights to 4-bit floats that share a power of two in groups of 32.",
    oracle="identity: torchao's MX conversion, elements and scales bit for bit",
    exact=False,
)

LARGEST_POWER = 2  # 6, the largest element, is 1.5 times 2^2
BIAS = 127  # of the stored exponent


@dataclass(frozen=True, kw_only=True, slots=True)
class MXFP4(LayerCompression):
    """4-bit floats; `group` neighbours of a row share a power of two."""

    group: int = 32

    def __post_init__(self) -> None:
        if self.group < 2:
            raise ValueError(f"group must be at least 2, got {self.group}")

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """The nearest codes; inputs stay as they are."""
        groups = grouped(weight, self.group)
        exponent = shared_exponent(groups.abs().amax(-1))
        codes = nearest_e2m1(torch.ldexp(groups, -exponent[..., None])).flatten(1)
        scales = (exponent + BIAS).to(torch.uint8).view(torch.float8_e8m0fnu)
        return Parts(CodebookWeight(codes, "e2m1", scales))


def shared_exponent(largest: Tensor) -> Tensor:
    """floor(log2 of the largest magnitude) - 2 within what 8 bits hold, int32; 0: the least."""
    exponent = torch.frexp(largest).exponent - 1 - LARGEST_POWER
    return torch.where(largest > 0, exponent, -BIAS).clamp(-BIAS, BIAS)


def nearest_e2m1(x: Tensor) -> Tensor:
    """The code of the nearest number of E2M1, ties to the even one; the sign is the fourth bit."""
    magnitudes = table("e2m1", x.device)[:8]
    middles = (magnitudes[:-1] + magnitudes[1:]) / 2
    lower = torch.bucketize(x.abs(), middles, out_int32=True)
    upper = torch.bucketize(x.abs(), middles, out_int32=True, right=True)
    return torch.where(lower % 2 == 0, lower, upper) + 8 * torch.signbit(x)
