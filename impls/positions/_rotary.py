"""Rotation of queries and keys by their positions, shared by RoPE and what is built on it.

Angles are computed in float64 and rounded once: in bfloat16 position x frequency is wrong by more
than half a turn from a few hundred positions on. d rotary width, theta_i inverse frequency.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from impls.models.hooks import Frame, PositionEncoding

Layout = Literal["half", "interleaved"]
# Inverse frequencies (d/2,) float64 and a factor of cos and sin, for a sequence of this length.
FrequencyRule = Callable[[int], tuple[Tensor, float]]


def inverse_frequencies(d: int, base: float) -> Tensor:
    """theta_i = base^(-2i/d), i < d/2, (d/2,) float64."""
    return base ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)


def rotated(
    x: Tensor, angles: Tensor, layout: Layout = "half", factor: float | Tensor = 1.0
) -> Tensor:
    """Turn the first 2n components of x (..., T, d) by angles (..., T, n) float64.

    `half` pairs component i with i + n (Llama, GPT-NeoX), `interleaved` 2i with 2i + 1 (the paper,
    GPT-J); the two differ by a permutation of components. `factor`, one number or one for each
    angle, scales the turned components.
    """
    n = angles.shape[-1]
    turned, rest = x[..., : 2 * n], x[..., 2 * n :]
    work = torch.promote_types(x.dtype, torch.float32)  # rotating in bfloat16 loses its last bits
    cos, sin = (factor * angles.cos()).to(work), (factor * angles.sin()).to(work)
    if layout == "half":
        a, b = turned.to(work).unflatten(-1, (2, n)).unbind(-2)
        out = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    else:
        a, b = turned.to(work).unflatten(-1, (n, 2)).unbind(-1)
        out = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    return torch.cat((out.to(x.dtype), rest), dim=-1) if rest.shape[-1] else out.to(x.dtype)


class RotaryEncoding(PositionEncoding):
    """Turns queries and keys by position x frequency.

    `rule` gives the frequencies for a length: context extensions replace it, and say by
    `static_keys` whether keys may be cached as they were turned.
    """

    def __init__(self, d: int, base: float, layout: Layout = "half") -> None:
        super().__init__()
        self.d, self.base, self.layout = d, base, layout
        theta = inverse_frequencies(d, base)
        self.rule: FrequencyRule = lambda length: (theta, 1.0)

    def turn(self, x: Tensor, pos: Tensor, length: int) -> Tensor:
        """Turn x (B, H, T, d) at positions (B or 1, T) of a sequence of `length` tokens."""
        theta, factor = self.rule(length)
        angles = pos[:, None, :, None].to(torch.float64) * theta.to(pos.device)
        return rotated(x, angles, self.layout, factor)

    def queries(self, q: Tensor, frame: Frame) -> Tensor:
        """Queries turned by their positions."""
        return self.turn(q, frame.q_pos, frame.length)

    def keys(self, k: Tensor, frame: Frame) -> Tensor:
        """Keys turned by their positions."""
        return self.turn(k, frame.k_pos, frame.length)
