"""NF4: weights rounded to 16 quantiles of a normal distribution, over the largest of each group.

    q = argmin_k |w / s - t_k|,    s = max |w|,      w^ = s t_q

w weight, s scale of a group of a row, t the table, whose numbers are equally likely if weights are
normal, 0 among them. With `nested`, scales less their mean are rounded to 8 bits in runs of 256
(arXiv:2305.14314, section 3). As there, codes are found with the scales as they were before.
"""

from dataclasses import dataclass

from torch import Tensor

from harness.card import Card
from impls.compression._codebook import CodebookWeight, grouped, nearest, table
from impls.compression._nested_codebook import NestedCodebookWeight
from impls.compression.interface import LayerCompression, LayerStatistics, Parts

CARD = Card(
    cls="NF4",
    title="NF4, QLoRA's NormalFloat",
    paper="arXiv:2305.14314",
    year=2023,
    summary="Rounds weights to quantiles of a normal distribution, and the scales to 8 bits.",
    oracle="identity: bitsandbytes' table, codes, scales and scales of scales, bit for bit",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class NF4(LayerCompression):
    """4-bit NormalFloat; `group` neighbours of a row share a scale."""

    group: int = 64
    nested: bool = True  # the scales in 8 bits, else in float32

    def __post_init__(self) -> None:
        if self.group < 2:
            raise ValueError(f"group must be at least 2, got {self.group}")

    def parts(self, weight: Tensor, statistics: LayerStatistics) -> Parts:
        """The nearest codes of the table; inputs stay as they are."""
        groups = grouped(weight, self.group)
        scale = groups.abs().amax(-1)
        share = groups * (1 / scale.clamp(min=1e-38))[..., None]
        codes = nearest(share, table("nf4", weight.device)).flatten(1)
        kind = NestedCodebookWeight if self.nested else CodebookWeight
        return Parts(kind(codes, "nf4", scale))
