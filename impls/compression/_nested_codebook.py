"""A weight as codes of a table whose scales are codes themselves: QLoRA's double quantization.

    s = mean + s2 d[k],    k from 0 to 255

d is a table of 256 numbers that grow tenfold from one run to the next; one s2 serves a run of 256
scales, in the order of the rows. R output rows, C input columns, g groups a row.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from impls.compression._codebook import CodebookWeight, Table, nearest
from impls.compression._stored import Shapes

RUN = 256  # scales that share a scale, arXiv:2305.14314
DECADES = 7


@cache
def dynamic_table() -> Tensor:
    """The numbers of dynamic 8-bit quantization, ascending, (256,) float32 (arXiv:2110.02861).

    Decade 10^-e holds the middles of 2^(6-e) equal parts of [0.1, 1] times 10^-e, and their
    negatives; with them 0 and 1.
    """
    numbers = [torch.tensor([0.0, 1.0])]
    for decade in range(DECADES):
        edges = torch.linspace(0.1, 1, 2**decade + 1)
        middles = 10.0 ** (decade - DECADES + 1) * ((edges[:-1] + edges[1:]) / 2)
        numbers += [middles, -middles]
    return torch.cat(numbers).sort().values


class NestedCodebookWeight(CodebookWeight):
    """Codes of a table with a scale for each group, the scales in 8 bits.

    Args:
        codes: (R, C) integers from 0 to 15.
        table: which numbers they stand for.
        scales: (R, g) float32.
    """

    kind = "nested_codebook"

    def __init__(self, codes: Tensor, table: Table, scales: Tensor) -> None:
        mean = scales.mean()
        centred = F.pad((scales - mean).flatten(), (0, -scales.numel() % RUN)).view(-1, RUN)
        absmax = centred.abs().amax(1)
        share = centred * (1 / absmax.clamp(min=torch.finfo(torch.float32).tiny))[:, None]
        numbers = dynamic_table().to(scales.device)
        codes_of_scales = nearest(share, numbers).flatten()[: scales.numel()].view(scales.shape)
        super().__init__(codes, table, codes_of_scales.to(torch.uint8))
        self.register_buffer("scales_of_scales", absmax)
        self.register_buffer("mean", mean.view(1))

    def scale(self) -> Tensor:
        """The scale of each group, (R, g) float32."""
        numbers = dynamic_table().to(self.scales.device)[self.scales.flatten().int()]
        of_scales = self.scales_of_scales.repeat_interleave(RUN)[: len(numbers)]
        return (numbers * of_scales + self.mean).view(self.scales.shape)

    @classmethod
    def shapes(cls, header: Mapping[str, Any]) -> Shapes:
        """Codes, codes of scales, their scales and their mean."""
        runs = -(-header["rows"] * header["groups"] // RUN)
        return {
            **super().shapes(header),
            "scales_of_scales": ((runs,), "float32"),
            "mean": ((1,), "float32"),
        }
