"""RoPE: turns queries and keys by their positions, so that a product knows only the distance.

    q'_m = R(m) q_m,  k'_n = R(n) k_n,  R(m) turns pair i by m theta_i,  theta_i = base^(-2i/d)
    <q'_m, k'_n> = <R(m - n) q_m, k_n>

m, n positions; d rotary width, `partial` of the head width.
"""

from dataclasses import dataclass
from typing import ClassVar

from harness.card import Card
from impls.positions._rotary import Layout, RotaryEncoding
from impls.positions.interface import LayerShape, PositionRecipe

CARD = Card(
    cls="RoPE",
    title="RoPE",
    paper="arXiv:2104.09864",
    year=2021,
    summary="Queries and keys are rotated by their positions; scores depend on the distance.",
    oracle="transformers' Llama (half) and GPT-J (interleaved) rotations",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RoPE(PositionRecipe):
    """Rotary position embedding."""

    base: float = 10_000.0
    layout: Layout = "half"
    partial: float = 1.0  # share of the head width that is turned; GPT-NeoX: 0.25

    injected_at: ClassVar = ("product",)
    depends_on: ClassVar = "relative"

    def __post_init__(self) -> None:
        if self.base <= 1:
            raise ValueError(f"base must be above 1, got {self.base}")
        if not 0 < self.partial <= 1:
            raise ValueError(f"partial must be in (0, 1], got {self.partial}")

    def build(self, shape: LayerShape) -> RotaryEncoding:
        """The rotation for heads of this width.

        Raises:
            ValueError: if the part to turn has no even width.
        """
        d = round(shape.d_head * self.partial)
        if d % 2 or not d:
            raise ValueError(f"{d} of {shape.d_head} components cannot be paired: change partial")
        return RotaryEncoding(d, self.base, self.layout)
