"""The distinct words of a corpus and how often each occurs: all that training looks at."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from impls.tokenizers._patterns import Pattern, spans
from impls.tokenizers._utf8 import Utf8, encoded, joined
from impls.tokenizers.kernels import words

_BLOCK_BYTES: Final = 1 << 23  # texts are joined up to this size, which bounds the memory held


class WordCounts(NamedTuple):
    """Word w is arena[starts[w]:starts[w + 1]], in order of first occurrence."""

    arena: NDArray[np.uint8]
    starts: NDArray[np.int64]  # (W + 1,)
    counts: NDArray[np.int64]  # (W,)

    def texts(self) -> list[bytes]:
        """The words as UTF-8."""
        data, ends = self.arena.tobytes(), self.starts.tolist()
        return [data[start:end] for start, end in pairwise(ends)]


def count_words(texts: Iterable[str], pattern: Pattern) -> WordCounts:
    """The distinct words of the texts.

    Raises:
        ValueError: if there is none.
    """
    table = WordTable()
    for data in _blocks(texts):
        for block in spans(data, pattern):
            table.add(data, block)
    if not table.n_words:
        raise ValueError(
            f"the corpus is empty: no text has a word of the pattern {pattern!r}; "
            "training needs at least one"
        )
    return table.result()


class WordTable:
    """Distinct words as they come; enlarges itself."""

    def __init__(self) -> None:
        self.n_words = 0
        self.slots = np.zeros((1 << 14, 3), np.uint64)
        self.arena = np.zeros(1 << 17, np.uint8)
        self.starts = np.zeros(1 << 13, np.int64)
        self.counts = np.zeros(1 << 13, np.int64)

    def add(self, data: Utf8, block: NDArray[np.int64]) -> None:
        """Count the words [start, end) of the block, (n, 2)."""
        row = 0
        while True:
            row, self.n_words = words.count(
                data.bytes,
                block,
                row,
                self.slots,
                self.arena,
                self.starts,
                self.counts,
                self.n_words,
            )
            if row == len(block):
                return
            start, end = block[row]
            self._enlarge(int(end - start))

    def result(self) -> WordCounts:
        """What was counted."""
        n = self.n_words
        return WordCounts(
            self.arena[: self.starts[n]].copy(), self.starts[: n + 1].copy(), self.counts[:n].copy()
        )

    def _enlarge(self, word_bytes: int) -> None:
        if self.starts[self.n_words] + word_bytes + 16 > len(self.arena):
            self.arena = np.pad(self.arena, (0, len(self.arena) + word_bytes))
        if self.n_words + 2 > len(self.starts):
            self.starts = np.pad(self.starts, (0, len(self.starts)))
            self.counts = np.pad(self.counts, (0, len(self.counts)))
        if 2 * self.n_words >= len(self.slots):
            self.slots = np.zeros((4 * len(self.slots), 3), np.uint64)
            words.index(self.slots, self.arena, self.starts, self.n_words)


def _blocks(texts: Iterable[str]) -> Iterator[Utf8]:
    parts: list[bytes] = []
    size = 0
    for text in texts:
        parts.append(encoded(text))
        size += len(parts[-1])
        if size >= _BLOCK_BYTES:
            yield joined(parts)
            parts, size = [], 0
    if parts:
        yield joined(parts)
