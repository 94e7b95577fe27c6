"""xPos: RoPE whose products also decay with the distance, at a rate of each pair of components.

    q'_m = R(m) q_m zeta^(m/S),  k'_n = R(n) k_n zeta^(-n/S),  zeta_i = (2i/d + gamma) / (1 + gamma)
    <q'_m, k'_n> = <R(m - n) zeta^((m - n)/S) q_m, k_n>

m, n positions; d head width, i < d/2 the pair; S the scale base. gamma -> inf is RoPE.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from harness.card import Card
from impls.positions._rotary import Layout, inverse_frequencies, rotated
from impls.positions.interface import (
    Frame,
    LayerShape,
    PositionEncoding,
    PositionRecipe,
    check_range,
)

CARD = Card(
    cls="XPos",
    title="xPos",
    paper="arXiv:2212.10554",
    year=2022,
    summary="RoPE with a decay: queries are scaled down and keys up as positions grow.",
    oracle="Toeplitz scores of the closed form; RoPE as gamma grows",
)
LARGEST_FACTOR = 1e30  # of a key; what is left to float32's 3e38 is for the key itself


@dataclass(frozen=True, kw_only=True, slots=True)
class XPos(PositionRecipe):
    """Extrapolatable rotary position embedding."""

    base: float = 10_000.0
    scale_base: float = 512.0
    gamma: float = 0.4
    layout: Layout = "interleaved"

    injected_at: ClassVar = ("product",)
    depends_on: ClassVar = "relative"

    def __post_init__(self) -> None:
        if self.base <= 1:
            raise ValueError(f"base must be above 1, got {self.base}")
        for name in ("scale_base", "gamma"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")

    def build(self, shape: LayerShape) -> "XPosEncoding":
        """The rotation and decay for heads of this width.

        Raises:
            ValueError: if the head width is odd.
        """
        if shape.d_head % 2:
            raise ValueError(f"components are turned in pairs: d_head is odd, {shape.d_head}")
        return XPosEncoding(shape, self)


class XPosEncoding(PositionEncoding):
    """Rotation and decay.

    Powers count from the middle of the trained length, and cancel in every product: so cached keys
    stay as they are, and factors stay in range for some 28,000 positions (`max_len`).
    """

    def __init__(self, shape: LayerShape, recipe: XPos) -> None:
        super().__init__()
        d, self.layout = shape.d_head, recipe.layout
        self.theta = inverse_frequencies(d, recipe.base)
        zeta = (torch.arange(0, d, 2, dtype=torch.float64) / d + recipe.gamma) / (1 + recipe.gamma)
        self.decay = zeta.log() / recipe.scale_base  # a position, (d/2,), below 0
        self.middle = shape.max_len // 2
        self.max_len = self.middle - math.ceil(math.log(LARGEST_FACTOR) / self.decay[0].item())

    def queries(self, q: Tensor, frame: Frame) -> Tensor:
        """Queries turned and scaled down."""
        return self._turned(q, frame.q_pos, self.decay)

    def keys(self, k: Tensor, frame: Frame) -> Tensor:
        """Keys turned and scaled up."""
        return self._turned(k, frame.k_pos, -self.decay)

    def _turned(self, x: Tensor, pos: Tensor, growth: Tensor) -> Tensor:
        check_range(pos, self.max_len, "XPos")
        pos = pos[:, None, :, None]
        factor = ((pos - self.middle) * growth.to(pos.device)).exp()
        return rotated(x, pos * self.theta.to(pos.device), self.layout, factor)
