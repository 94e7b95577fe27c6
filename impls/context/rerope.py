"""Rectified RoPE: distances beyond a window count as the window, or grow slower.

    score(i, j) at distance  i - j,               i - j < w
                             w,                   i - j >= w, rectified
                             w + (i - j - w) / k, i - j >= w, leaky

w window, k leak. Two products, of which each pair takes one: near keys are told apart as in
training, far ones lie at distances that training has shown. With log n scaling it is the best of
the rules that need no training (https://kexue.fm/archives/9708).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from harness.card import Card
from impls.context._log_scaled import LogScaled
from impls.context._rescaled import rotation_of
from impls.context._scored import TwoBranch
from impls.context.interface import EncodingRule, PositionEncoding

CARD = Card(
    cls="ReRoPE",
    title="Rectified RoPE",
    paper="https://github.com/bojone/rerope",
    year=2023,
    summary="Distances beyond a window are clipped to it, or grow slower by a factor.",
    oracle="rotation pair by pair; identities: plain for w beyond the text and for k = 1",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReRoPE(EncodingRule):
    """Rectified and leaky rotary positions."""

    window: int | None = None  # w; None: half the trained length
    leak: float | None = None  # k; None: rectified, as k without end
    logn: bool = False  # queries are scaled by log n as well

    kind: ClassVar = "score"

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ValueError(f"window must be at least 1 or None, got {self.window}")
        if self.leak is not None and self.leak < 1:
            raise ValueError(f"leak must be at least 1 or None, got {self.leak}")

    def extended(
        self, encoding: PositionEncoding, *, train_len: int, target_len: int
    ) -> PositionEncoding:
        """The rotation in two branches, with log n scaling where asked for."""
        window = max(1, train_len // 2) if self.window is None else self.window

        def rectified(q_pos: Tensor, k_pos: Tensor) -> tuple[Tensor, Tensor]:
            return torch.full_like(q_pos, window), torch.zeros_like(k_pos)

        def leaky(q_pos: Tensor, k_pos: Tensor) -> tuple[Tensor, Tensor]:
            leak = float(self.leak)
            return q_pos.double() / leak + (window - window / leak), k_pos.double() / leak

        moved = rectified if self.leak is None else leaky
        branches = TwoBranch(rotation_of(encoding), window, moved)
        return LogScaled(branches, train_len) if self.logn else branches
