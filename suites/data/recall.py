"""Associative recall: pairs of a key and a value planted in text, the value asked for later.

A pair is three ids, MARK key value; MARK is one id beyond the tokenizer's. In training windows the
same pair comes again, so that its value can be told from before; a test window holds it once, at a
known depth, and ends with MARK key. N windows, T tokens.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

SYMBOLS = 26  # keys, and values
PAIR = 3  # ids of one pair


@dataclass(frozen=True)
class Recall:
    """Ids that pairs are made of, for a vocabulary of this size."""

    vocab_size: int

    @property
    def mark(self) -> int:
        """The id before every key; a model needs `vocab_size + 1` ids."""
        return self.vocab_size

    @property
    def values(self) -> Ids:
        """The ids a value may be, (26,)."""
        return self._symbols()[SYMBOLS:]

    @property
    def keys(self) -> Ids:
        """The ids a key may be, (26,)."""
        return self._symbols()[:SYMBOLS]

    def _symbols(self) -> Ids:
        if self.vocab_size < 2 * SYMBOLS:
            raise ValueError(
                f"recall needs {2 * SYMBOLS} ids for keys and values, the tokenizer has "
                f"{self.vocab_size}: set recall_share=0"
            )
        return np.random.default_rng(0).permutation(self.vocab_size)[: 2 * SYMBOLS]

    def plant(self, windows: Ids, share: float, rng: np.random.Generator) -> Ids:
        """Training windows (N, T), a share of them with pairs in them, half of those densely."""
        n, length = windows.shape
        planted = windows.copy()
        slots = (length - 1) // PAIR
        for row in planted[: round(n * share)]:
            dense = rng.random() < 0.5
            n_pairs, n_keys = (slots, 4) if dense else (min(4, slots), 2)
            keys = rng.choice(self.keys, n_keys, replace=False)
            values = rng.choice(self.values, n_keys)
            which = rng.integers(0, n_keys, n_pairs)
            places = PAIR * rng.choice(slots, n_pairs, replace=False)
            row[places], row[places + 1], row[places + 2] = self.mark, keys[which], values[which]
        return planted

    def ask(self, windows: Ids, depth: float, rng: np.random.Generator) -> tuple[Ids, Ids]:
        """Test windows (N, T) with one pair at this depth, and the value each must end with (N,).

        Depth 0 is the beginning of the window, 1 as near to the question as it fits.
        """
        n, length = windows.shape
        keys, values = rng.choice(self.keys, n), rng.choice(self.values, n)
        asked, place = windows.copy(), round(depth * (length - PAIR - 2))
        asked[:, place], asked[:, place + 1], asked[:, place + 2] = self.mark, keys, values
        asked[:, -2], asked[:, -1] = self.mark, keys
        return asked, values
