"""NTK-aware scaling: low frequencies are interpolated, the highest stays as it was.

    base:   theta'_i = b'^(-2i/d),  b' = b s^(d/(d-2))
    mixed:  theta'_i = theta_i exp(-a (i + 1)^0.75),  a so that the last is divided by s

i = 0 .. d/2 - 1 a pair of components, d rotary width, b base, s target length over trained length.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.card import Card
from impls.context import _frequencies
from impls.context._frequencies import check_factor
from impls.context._log_scaled import LogScaled
from impls.context.interface import FrequencyRecipe, PositionEncoding, RopeShape, scale_of

CARD = Card(
    cls="NTKAware",
    title="NTK-aware scaling",
    paper="arXiv:2309.00071",
    year=2023,
    summary="A larger base: the lowest frequency is divided by the factor, the highest is kept.",
    oracle="identities: the first frequency is unchanged, the last divided by s",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class NTKAware(FrequencyRecipe):
    """NTK-aware interpolation (appendix A of the YaRN paper)."""

    factor: float | None = None  # s; None: target length / trained length
    variant: Literal["base", "mixed"] = (
        "base"  # mixed: NTK-RoPE-mixed, https://kexue.fm/archives/9706
    )
    logn: bool = False  # queries are scaled by log n as well

    def __post_init__(self) -> None:
        check_factor(self.factor)

    def frequencies(self, rope: RopeShape, *, target_len: int, length: int) -> tuple[Tensor, float]:
        """The frequencies of the larger base."""
        scale = scale_of(self.factor, rope.train_len, target_len)
        if self.variant == "base":
            return _frequencies.ntk(rope, scale), 1.0
        n = rope.d // 2
        a = math.log(scale) / n**0.75
        return rope.theta * torch.exp(-a * torch.arange(1, n + 1).double() ** 0.75), 1.0

    def extended(
        self, encoding: PositionEncoding, *, train_len: int, target_len: int
    ) -> PositionEncoding:
        """The rotation under these frequencies, with log n scaling where asked for."""
        turned = FrequencyRecipe.extended(
            self, encoding, train_len=train_len, target_len=target_len
        )
        return LogScaled(turned, train_len) if self.logn else turned
