"""Position encodings: how a model knows where its tokens stand.

A recipe (`RoPE(base=10000.0)`) builds a `PositionEncoding` for a shape; the encoding's hooks are
called by any model or attention layer that follows `impls/models/hooks.py`:

    embed       added to the token embeddings
    queries, keys   applied before their product (rotations)
    score_bias  added to the scaled scores; `score_mod` is the same, pointwise, for FlexAttention
    value_bias  added to the output
    scale       factor of the product

What every member satisfies (tests/contracts/test_positions.py): scores shift with positions as
`depends_on` declares; decoding with a cache equals one pass; shards of a sequence with their own
positions equal the whole; gradients are right; nothing is written to inputs; a position a table
does not hold is refused by name.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor

from impls.models.hooks import Frame, LayerShape, PositionEncoding, ScoreMod

__all__ = ["Frame", "LayerShape", "PositionEncoding", "PositionRecipe", "ScoreMod", "check_range"]

Place = Literal["embedding", "product", "score", "value", "nowhere"]
Dependence = Literal["absolute", "relative", "content", "none"]


class PositionRecipe(ABC):
    """A position technique.

    `injected_at` says where positions enter; `depends_on` what a score depends on: `relative` means
    that shifting all positions alike changes nothing, `content` that it depends on what stands
    between (so on no position number), `none` on no position at all.
    """

    injected_at: ClassVar[tuple[Place, ...]]
    depends_on: ClassVar[Dependence]

    @abstractmethod
    def build(self, shape: LayerShape) -> PositionEncoding:
        """The encoding for a model of this shape; its parameters are freshly initialised."""


def check_range(pos: Tensor, max_len: int, name: str) -> None:
    """Refuse positions that a table of `max_len` rows does not hold.

    Raises:
        ValueError: naming the position and the bound.
    """
    if pos.numel() and not 0 <= int(pos.min()) <= int(pos.max()) < max_len:
        worst = int(pos.max()) if int(pos.max()) >= max_len else int(pos.min())
        raise ValueError(
            f"{name} knows positions 0 to {max_len - 1}, not {worst}: "
            "build it with a larger max_len"
        )
