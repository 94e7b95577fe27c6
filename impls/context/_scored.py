"""Encodings whose scores no single product of queries and keys gives.

B batch, H query heads, G key/value heads, T tokens (Tq queries, Tk keys), d head width.
"""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from impls.models.hooks import Frame, PositionEncoding
from impls.positions._rotary import RotaryEncoding


class Scored(PositionEncoding):
    """An encoding whose scores no single product gives: all of a score is its bias.

    Queries enter the model's product as zeros, so that nothing is added to the bias and taken off
    again, which would cost the last digits. Keys are cached as projected.
    """

    static_keys = False

    def queries(self, q: Tensor, frame: Frame) -> Tensor:
        """Zeros."""
        return torch.zeros_like(q)

    def score_bias(self, q: Tensor, k: Tensor, frame: Frame) -> Tensor:
        """The scaled scores themselves, (B, H, Tq, Tk)."""
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        return self.scale(q.shape[-1]) * self.scores(q, k, frame)

    @abstractmethod
    def scores(self, q: Tensor, k: Tensor, frame: Frame) -> Tensor:
        """Scores (B, H, Tq, Tk), not scaled, of q (B, H, Tq, d) and k (B, H, Tk, d)."""


class TwoBranch(Scored):
    """Near keys score as trained, far ones as if they stood elsewhere.

    Args:
        rotation: the rotation as trained.
        near: a key less than this many tokens back is near.
        moved: where queries and keys stand for the far scores, from (q_pos, k_pos).
        hidden: far keys at or beyond this position are not seen at all; None: all are seen.
    """

    def __init__(
        self,
        rotation: RotaryEncoding,
        near: int,
        moved: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        *,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.rotation, self.near, self.moved, self.hidden = rotation, near, moved, hidden

    def scores(self, q: Tensor, k: Tensor, frame: Frame) -> Tensor:
        """Both branches everywhere, then the one that counts."""
        near = self._product(q, k, frame.q_pos, frame.k_pos, frame.length)
        far = self._product(q, k, *self.moved(frame.q_pos, frame.k_pos), frame.length)
        if self.hidden is not None:
            beyond = (frame.k_pos >= self.hidden)[:, None, None]
            far = far.masked_fill(beyond, float("-inf"))
        return torch.where((frame.distance < self.near)[:, None], near, far)

    def _product(self, q: Tensor, k: Tensor, q_pos: Tensor, k_pos: Tensor, length: int) -> Tensor:
        turn = self.rotation.turn
        return turn(q, q_pos, length) @ turn(k, k_pos, length).mT
