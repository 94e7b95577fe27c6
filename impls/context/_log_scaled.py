"""Log n scaling over any position encoding. L trained length, B batch, H heads, T tokens."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from impls.models.hooks import Frame, PositionEncoding


class Wrapped(PositionEncoding):
    """Another encoding, but for the hooks that a subclass overrides.

    It shares the other's parameters under their own names, so a model's state dict stays the same.
    """

    def __init__(self, inner: PositionEncoding) -> None:
        super().__init__()
        self._parameters, self._buffers = inner._parameters, inner._buffers
        self._modules = inner._modules
        self.__dict__["inner"] = inner  # not a submodule: that would rename the parameters
        self.static_keys, self.max_len = inner.static_keys, inner.max_len

    def at(self, layer: int) -> PositionEncoding:
        """The other encoding at this layer, wrapped alike."""
        inner = self.inner.at(layer)
        return self if inner is self.inner else self.around(inner)

    @abstractmethod
    def around(self, inner: PositionEncoding) -> "Wrapped":
        """This wrapping of another encoding."""

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        """As the other."""
        return self.inner.embed(x, pos)

    def queries(self, q: Tensor, frame: Frame) -> Tensor:
        """As the other."""
        return self.inner.queries(q, frame)

    def keys(self, k: Tensor, frame: Frame) -> Tensor:
        """As the other."""
        return self.inner.keys(k, frame)

    def score_bias(self, q: Tensor, k: Tensor, frame: Frame) -> Tensor | None:
        """As the other."""
        return self.inner.score_bias(q, k, frame)

    def value_bias(self, weights: Tensor, frame: Frame) -> Tensor | None:
        """As the other."""
        return self.inner.value_bias(weights, frame)

    def scale(self, d_head: int) -> float:
        """As the other."""
        return self.inner.scale(d_head)

    @property
    def reads_weights(self) -> bool:
        """As the other."""
        return self.inner.reads_weights


class LogScaled(Wrapped):
    """Queries times max(1, log(p + 1) / log L) at position p, over any encoding."""

    def __init__(self, inner: PositionEncoding, train_len: int) -> None:
        super().__init__(inner)
        self.train_len = train_len

    def around(self, inner: PositionEncoding) -> "LogScaled":
        """The same scaling over another encoding."""
        return LogScaled(inner, self.train_len)

    def queries(self, q: Tensor, frame: Frame) -> Tensor:
        """The other's, of scaled queries."""
        return self.inner.queries(self._scaled(q, frame), frame)

    def score_bias(self, q: Tensor, k: Tensor, frame: Frame) -> Tensor | None:
        """The other's, of scaled queries: where it holds the scores, they are scaled too."""
        return self.inner.score_bias(self._scaled(q, frame), k, frame)

    def _scaled(self, q: Tensor, frame: Frame) -> Tensor:
        grown = torch.log(frame.q_pos.double() + 1) / math.log(self.train_len)
        return q * grown.clamp(min=1.0)[:, None, :, None].to(q.dtype)


def unwrapped(encoding: PositionEncoding) -> PositionEncoding:
    """The encoding inside all wrappings."""
    while isinstance(encoding, Wrapped):
        encoding = encoding.inner
    return encoding
