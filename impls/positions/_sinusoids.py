"""Sinusoidal position vectors, shared by the techniques that add them to embeddings."""

import torch
from torch import Tensor

from impls.positions._rotary import Layout, inverse_frequencies
from impls.positions.interface import PositionEncoding


def sinusoids(pos: Tensor, width: int, base: float, layout: Layout = "interleaved") -> Tensor:
    """Sines and cosines of pos theta_i, theta_i = base^(-2i/width): (..., width) float64.

    `interleaved` puts the sine at 2i and the cosine at 2i + 1 (the paper), `half` all sines before
    all cosines (tensor2tensor). Angles in float64: see `_rotary.py`.
    """
    angles = pos[..., None].to(torch.float64) * inverse_frequencies(width, base).to(pos.device)
    waves = (angles.sin(), angles.cos())
    return torch.cat(waves, -1) if layout == "half" else torch.stack(waves, -1).flatten(-2)


class SinusoidalEncoding(PositionEncoding):
    """Adds sinusoids to token embeddings, which are multiplied by `factor` before."""

    def __init__(self, width: int, base: float, layout: Layout, factor: float) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"sinusoids come in pairs: d_model must be even, got {width}")
        self.width, self.base, self.layout, self.factor = width, base, layout, factor

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        """Embeddings times factor, plus the waves, (B, T, D), rounded once."""
        work = torch.promote_types(x.dtype, torch.float32)
        waves = sinusoids(pos, self.width, self.base, self.layout).to(work)
        return torch.add(waves, x, alpha=self.factor).to(x.dtype)
