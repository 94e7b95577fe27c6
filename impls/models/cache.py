"""The plain key/value cache, which others replace or build upon.

B batch, G key/value heads, T tokens appended, Tk tokens held, d and dv widths of keys and values.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Held(NamedTuple):
    """What a cache holds after an append; G heads, Tk tokens."""

    k: Tensor  # (B, G, Tk, d)
    v: Tensor  # (B, G, Tk, dv)
    q_pos: Tensor  # (B or 1, T): positions of the tokens just appended, as the cache counts them
    k_pos: Tensor  # (B or 1, Tk)
    keep: Tensor | None  # (B, Tk)


class Cache:
    """Keys and values of the tokens so far, in one block that is allocated once.

    Subclasses hold fewer tokens (a window, sinks), or hold them otherwise (pages, quantized).
    """

    raw_keys = False  # True: holds keys before `PositionEncoding.keys`, whatever the encoding says

    def __init__(self, max_len: int) -> None:
        if max_len < 1:
            raise ValueError(f"max_len must be at least 1, got {max_len}")
        self.max_len, self.length = max_len, 0
        self._held: tuple[Tensor, ...] = ()

    def append(self, k: Tensor, v: Tensor, pos: Tensor, keep: Tensor | None) -> Held:
        """Take in T tokens and give all that queries at these tokens may need.

        Args:
            k: keys, (B, G, T, d).
            v: values, (B, G, T, dv).
            pos: positions, (B or 1, T).
            keep: (B, T) bool or None.

        Raises:
            ValueError: if the tokens do not fit into `max_len`.
        """
        start, end = self.length, self.length + k.shape[2]
        if end > self.max_len:
            raise ValueError(f"the cache holds {self.max_len} tokens, not {end}: raise max_len")
        if not self._held:
            self._held = self._allocate(k, v, pos)
        keep = torch.ones_like(k[:, 0, :, 0], dtype=torch.bool) if keep is None else keep
        for store, new in zip(self._held, (k, v, pos, keep), strict=True):
            _along_tokens(store, start, end).copy_(new)
        self.length = end
        held = [_along_tokens(store, 0, end) for store in self._held]
        all_kept = bool(held[3].all())
        return Held(held[0], held[1], pos, held[2], None if all_kept else held[3])

    def _allocate(self, k: Tensor, v: Tensor, pos: Tensor) -> tuple[Tensor, ...]:
        batch, heads, _, d = k.shape
        return (
            k.new_empty(batch, heads, self.max_len, d),
            v.new_empty(batch, heads, self.max_len, v.shape[-1]),
            pos.new_empty(pos.shape[0], self.max_len),
            pos.new_empty((batch, self.max_len), dtype=torch.bool),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values held (not of what is allocated ahead)."""
        return sum(_along_tokens(store, 0, self.length).nbytes for store in self._held[:2])


def _along_tokens(store: Tensor, start: int, end: int) -> Tensor:
    """The slice of tokens: axis 2 of keys and values, axis 1 of positions and keep."""
    return store[:, :, start:end] if store.ndim == 4 else store[:, start:end]
