"""Consistent dynamic NTK: every query turns itself and all keys by the base of its own length.

    b'(T) = b (s T / L - (s - 1))^(d/(d-2))   for T > L,   b otherwise
    score(m, n) = <R(m; b'(m+1)) q_m,  R(n; b'(m+1)) k_n>,   n <= m

m, n positions; L trained length, b base, d rotary width, s factor, R(m; b) the rotation by position
m under base b. Keys are cached as projected and turned anew in every step, so no key carries an
older base. One pass gives each query its own base too, where transformers gives all the last one's:
only so are the deeper layers' keys the ones that decoding has cached. The price is a rotation of
all keys for every query beyond L.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from harness.card import Card
from impls.context._frequencies import check_factor, dynamic_scale, ntk
from impls.context._rescaled import Rescaled
from impls.context._scored import Scored
from impls.context.interface import Frame, FrequencyRecipe, PositionEncoding, RopeShape, scale_of

CARD = Card(
    cls="ConsistentDynamicNTK",
    title="Consistent dynamic NTK",
    paper="https://github.com/NormXU/Consistent-DynamicNTKRoPE",
    year=2023,
    summary="NTK-aware scaling by the length so far; each query turns all its keys by one base.",
    oracle="identity: one pass equals decoding; in one layer, the last query is dynamic NTK's",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsistentDynamicNTK(FrequencyRecipe):
    """Dynamic NTK-aware scaling with a cache of keys as projected."""

    factor: float | None = None  # s; None: target length / trained length

    unchanged_within: ClassVar = True

    def __post_init__(self) -> None:
        check_factor(self.factor)

    def frequencies(self, rope: RopeShape, *, target_len: int, length: int) -> tuple[Tensor, float]:
        """The frequencies at this length."""
        scale = scale_of(self.factor, rope.train_len, target_len)
        return ntk(rope, dynamic_scale(scale, rope, length)), 1.0

    def extended(
        self, encoding: PositionEncoding, *, train_len: int, target_len: int
    ) -> PositionEncoding:
        """The rotation under these frequencies, taken for each query at its own length."""
        turned = FrequencyRecipe.extended(
            self, encoding, train_len=train_len, target_len=target_len
        )
        return OwnLength(turned, train_len)


class OwnLength(Scored):
    """A rotation by the frequencies of each query's own length.

    Args:
        rotation: turns by the frequencies of a length.
        train_len: up to here all lengths have the same frequencies.
    """

    def __init__(self, rotation: Rescaled, train_len: int) -> None:
        super().__init__()
        self.rotation, self.train_len = rotation, train_len

    def queries(self, q: Tensor, frame: Frame) -> Tensor:
        """Turned where all have the same frequencies, which one product then serves."""
        return self.rotation.queries(q, frame) if self._alike(frame) else super().queries(q, frame)

    def keys(self, k: Tensor, frame: Frame) -> Tensor:
        """Turned like the queries."""
        return self.rotation.keys(k, frame) if self._alike(frame) else k

    def score_bias(self, q: Tensor, k: Tensor, frame: Frame) -> Tensor | None:
        """All of the scores, where no single product gives them."""
        return None if self._alike(frame) else super().score_bias(q, k, frame)

    def scores(self, q: Tensor, k: Tensor, frame: Frame) -> Tensor:
        """A product for each length that a query has; keys that none of its queries sees stay 0."""
        lengths = (frame.q_pos + 1).clamp(min=self.train_len)  # (B or 1, Tq)
        scores, turn = q.new_zeros(*q.shape[:3], k.shape[2]), self.rotation.turn
        for length in lengths.unique().tolist():
            here = lengths == length
            at = here.any(0).nonzero()[:, 0]
            seen = int(at[-1]) + frame.offset + 1 if frame.causal else k.shape[2]
            queries = turn(q[:, :, at], frame.q_pos[:, at], length)
            keys = turn(k[:, :, :seen], frame.k_pos[:, :seen], length)
            before = scores[:, :, at, :seen]
            scores[:, :, at, :seen] = torch.where(
                here[:, None, at, None], queries @ keys.mT, before
            )
        return scores

    def _alike(self, frame: Frame) -> bool:
        """Whether every query has the frequencies of the whole text."""
        return max(self.train_len, int(frame.q_pos.min()) + 1) >= frame.length
