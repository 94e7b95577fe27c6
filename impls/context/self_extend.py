"""Self-Extend: beyond a window of neighbours, positions count in groups.

    score(i, j) at distance  i - j,                                  i - j < w
                             floor(i/G) - floor(j/G) + w - floor(w/G),  i - j >= w

w neighbours, G group size. The farthest distance is about (T - w) / G + w, which G keeps below the
trained length.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from harness.card import Card
from impls.context._rescaled import rotation_of
from impls.context._scored import TwoBranch
from impls.context.interface import EncodingRule, PositionEncoding

CARD = Card(
    cls="SelfExtend",
    title="Self-Extend",
    paper="arXiv:2401.01325",
    year=2024,
    summary="Near keys at their distances, far ones at distances between groups of positions.",
    oracle="rotation pair by pair; identity: plain for w beyond the text and for groups of 1",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfExtend(EncodingRule):
    """Grouped attention beyond neighbours."""

    neighbours: int | None = None  # w; None: half the trained length
    group: int | None = None  # G; None: the smallest that keeps distances in the trained range

    kind: ClassVar = "score"

    def __post_init__(self) -> None:
        for name in ("neighbours", "group"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 or None, got {value}")

    def extended(
        self, encoding: PositionEncoding, *, train_len: int, target_len: int
    ) -> PositionEncoding:
        """The rotation in two branches.

        Raises:
            ValueError: if no group size keeps distances in the trained range.
        """
        near = max(1, train_len // 2) if self.neighbours is None else self.neighbours
        group = self._group(near, train_len, target_len)

        def grouped(q_pos: Tensor, k_pos: Tensor) -> tuple[Tensor, Tensor]:
            return q_pos // group + (near - near // group), k_pos // group

        return TwoBranch(rotation_of(encoding), near, grouped)

    def _group(self, near: int, train_len: int, target_len: int) -> int:
        if self.group is not None:
            return self.group
        if near >= train_len - 1 and target_len > train_len:
            raise ValueError(
                f"{near} neighbours leave none of the trained length {train_len} for groups: "
                "lower neighbours or set group"
            )
        if target_len <= train_len:
            return 1
        return -(-(target_len - near) // (train_len - near - 1))
