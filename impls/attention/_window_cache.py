"""A cache of the tokens that a window still reaches, and of the first ones for good."""

import torch
from torch import Tensor

from impls.models.hooks import Cache, Held


class WindowCache(Cache):
    """Keys and values of the first `sinks` tokens and the last `window` - 1 before the new ones.

    There is no end to what it takes in; time and bytes of a step do not grow.
    """

    def __init__(self, window: int, *, sinks: int = 0) -> None:
        super().__init__(sinks + window)
        self.window, self.sinks = window, sinks

    def append(self, k: Tensor, v: Tensor, pos: Tensor, keep: Tensor | None) -> Held:
        """Take in T tokens and give all that their queries reach, oldest first."""
        if keep is None:
            keep = torch.ones(k.shape[0], k.shape[2], dtype=torch.bool, device=k.device)
        new = (k, v, pos, keep)
        old = self._held or tuple(x.narrow(_axis(x), 0, 0) for x in new)
        held = [torch.cat(pair, _axis(pair[0])) for pair in zip(old, new, strict=True)]
        self._held = tuple(self._kept(x) for x in held)
        self.length += k.shape[2]
        return Held(held[0], held[1], pos, held[2], None if bool(held[3].all()) else held[3])

    def _kept(self, x: Tensor) -> Tensor:
        """What later queries reach; a copy, so that nothing else stays in memory."""
        axis, recent = _axis(x), self.window - 1
        n = x.shape[axis]
        if n <= self.sinks + recent:
            return x
        parts = (x.narrow(axis, 0, self.sinks), x.narrow(axis, n - recent, recent))
        return torch.cat(parts, axis)


def _axis(x: Tensor) -> int:
    """Where the tokens are: axis 2 of keys and values, axis 1 of positions and keep."""
    return 2 if x.ndim == 4 else 1
