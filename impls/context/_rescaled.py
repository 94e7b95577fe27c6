"""A trained rotation under other frequencies. d rotary width, B batch, H heads, T tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor

from impls.models.hooks import PositionEncoding
from impls.positions._rotary import FrequencyRule, RotaryEncoding, inverse_frequencies, rotated


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeShape:
    """What a frequency rule starts from."""

    d: int  # rotary width
    base: float
    train_len: int

    @property
    def theta(self) -> Tensor:
        """Inverse frequencies as trained, (d/2,) float64."""
        return inverse_frequencies(self.d, self.base)


class Rescaled(RotaryEncoding):
    """A trained rotation under another frequency rule.

    Args:
        trained: the rotation as trained.
        rule: the frequencies to turn by.
        kept: the first positions, which turn as trained.
    """

    def __init__(self, trained: RotaryEncoding, rule: FrequencyRule, *, kept: int = 0) -> None:
        super().__init__(trained.d, trained.base, trained.layout)
        self.rule, self.kept = rule, kept

    def angles(self, pos: Tensor, length: int) -> tuple[Tensor, float]:
        """Angles (*pos.shape, d/2) float64, and the factor of cos and sin."""
        theta, factor = self.rule(length)
        pos = pos[..., None].double()
        angles = pos * theta.to(pos.device)
        if self.kept:
            trained = pos * inverse_frequencies(self.d, self.base).to(pos.device)
            angles = torch.where(pos < self.kept, trained, angles)
        return angles, factor

    def turn(self, x: Tensor, pos: Tensor, length: int) -> Tensor:
        """X (B, H, T, d) at positions (B or 1, T) of a sequence of `length` tokens."""
        angles, factor = self.angles(pos, length)
        return rotated(x, angles[:, None], self.layout, factor)


def rotation_of(encoding: PositionEncoding) -> RotaryEncoding:
    """The encoding, if it is a rotation and nothing else.

    Raises:
        ValueError: if it is not.
    """
    if type(encoding) not in (RotaryEncoding, Rescaled):
        name = type(encoding).__name__
        raise ValueError(
            f"this technique extends a rotation (RoPE) and the model has {name}: "
            "take a model trained with positions/rope, and apply this technique first"
        )
    return encoding


def as_trained(encoding: PositionEncoding) -> RotaryEncoding:
    """The encoding, if it is a rotation by base^(-2i/d).

    Raises:
        ValueError: if it is not, or another rule has changed its frequencies already.
    """
    rotation = rotation_of(encoding)
    theta, factor = rotation.rule(1)
    plain = factor == 1 and torch.equal(theta, inverse_frequencies(rotation.d, rotation.base))
    if isinstance(rotation, Rescaled) or not plain:
        raise ValueError(
            "the frequencies of this model's rotation are changed already: a second frequency rule "
            "would undo the first; leave that block, or load the model with its default rotation"
        )
    return rotation
