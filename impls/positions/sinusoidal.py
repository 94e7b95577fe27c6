"""Sinusoidal positions: waves of geometric wavelengths are added to the token embeddings.

    x_p = sqrt(D) e_p + PE(p),   PE(p, 2i) = sin(p theta_i),   PE(p, 2i + 1) = cos(p theta_i)
    theta_i = base^(-2i/D)

p position; e token embeddings; D model width. A step of k turns each pair by k theta_i.
"""

from dataclasses import dataclass
from typing import ClassVar

from harness.card import Card
from impls.positions._rotary import Layout
from impls.positions._sinusoids import SinusoidalEncoding
from impls.positions.interface import LayerShape, PositionRecipe

CARD = Card(
    cls="Sinusoidal",
    title="Sinusoidal",
    paper="arXiv:1706.03762",
    year=2017,
    summary="Sines and cosines of the position are added to the token embeddings.",
    oracle="PE(p + k) is a rotation of PE(p); transformers' sinusoidal tables",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sinusoidal(PositionRecipe):
    """Sinusoidal position embedding."""

    base: float = 10_000.0
    layout: Layout = "interleaved"
    scale_embedding: bool = True  # by sqrt(D), so that narrow initial embeddings are not drowned

    injected_at: ClassVar = ("embedding",)
    depends_on: ClassVar = "absolute"

    def __post_init__(self) -> None:
        if self.base <= 1:
            raise ValueError(f"base must be above 1, got {self.base}")

    def build(self, shape: LayerShape) -> SinusoidalEncoding:
        """The waves for a model of this width.

        Raises:
            ValueError: if the width is odd.
        """
        factor = shape.d_model**0.5 if self.scale_embedding else 1.0
        return SinusoidalEncoding(shape.d_model, self.base, self.layout, factor)
