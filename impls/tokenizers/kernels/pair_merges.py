"""Learning merges: the adjacent pair of highest score becomes one symbol, again and again.

A position is a place in the corpus of distinct words; a merge keeps the left position and unlinks
the right one, so each costs O(1) whatever the length of its word. The rows of the pair table never
outnumber three times the positions, hence fixed arrays.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

_MIX = 0x9E3779B97F4A7C15 - (1 << 64)


class Corpus(NamedTuple):
    """Symbols of all distinct words and the table of pairs in them, changed by `merge`."""

    symbol: NDArray[np.int32]  # (S,) -1 where merged into its left neighbour
    left: NDArray[np.int32]  # (S,) position before, -1 at the start of a word
    right: NDArray[np.int32]  # (S,) position after, -1 at the end of a word
    weight: NDArray[np.int64]  # (S,) how often the word occurs
    frequency: NDArray[np.int64]  # (V,) occurrences of each symbol
    slots: NDArray[np.int32]  # hash table of pairs: row or -1
    pairs: NDArray[np.int64]  # (3S, 2) left and right symbol of each row
    counts: NDArray[np.int64]  # (3S,) weighted occurrences of each row
    newest: NDArray[np.int32]  # (3S,) latest entry of the row's list of occurrences
    occurrence: NDArray[np.int32]  # (3S, 2) position, and the entry before
    live: NDArray[np.int32]  # (3S,) rows that may have a count above zero
    is_live: NDArray[np.bool_]  # (3S,)
    sizes: NDArray[np.int64]  # (3,) rows, occurrences, live rows


def new_corpus(symbols, ends, counts, n_symbols):
    """The table over words symbols[ends[w - 1]:ends[w]], each occurring counts[w] times.

    symbols (S,) int32, ends (W,) int64, counts (W,) int64; n_symbols bounds the ids ever used.
    """
    n = symbols.size
    lengths = np.diff(ends, prepend=0)
    left = np.arange(-1, n - 1, dtype=np.int32)
    right = np.arange(1, n + 1, dtype=np.int32)
    left[ends[:-1]] = -1
    left[:1] = -1
    right[ends - 1] = -1
    weight = np.repeat(counts, lengths)
    n_slots = 1 << (6 * n + 64).bit_length()
    corpus = Corpus(
        symbol=symbols.copy(),
        left=left,
        right=right,
        weight=weight,
        frequency=np.bincount(symbols, weight, n_symbols).astype(np.int64),
        slots=np.full(n_slots, -1, np.int32),
        pairs=np.empty((3 * n, 2), np.int64),
        counts=np.zeros(3 * n, np.int64),
        newest=np.full(3 * n, -1, np.int32),
        occurrence=np.empty((3 * n, 2), np.int32),
        live=np.empty(3 * n, np.int32),
        is_live=np.zeros(3 * n, np.bool_),
        sizes=np.zeros(3, np.int64),
    )
    _enter_all(corpus)
    return corpus


@njit(cache=True)
def _row(c, a, b):
    mask = c.slots.size - 1
    mixed = (a << 32 | b) * _MIX
    at = (mixed >> 30) & mask
    while c.slots[at] >= 0:
        row = c.slots[at]
        if c.pairs[row, 0] == a and c.pairs[row, 1] == b:
            return np.int64(row)
        at = (at + 1) & mask
    row = c.sizes[0]
    c.sizes[0] += 1
    c.slots[at] = row
    c.pairs[row, 0] = a
    c.pairs[row, 1] = b
    return row


@njit(cache=True)
def _enter(c, position):
    """Count the pair that starts at `position`."""
    row = _row(c, np.int64(c.symbol[position]), np.int64(c.symbol[c.right[position]]))
    c.counts[row] += c.weight[position]
    entry = c.sizes[1]
    c.sizes[1] += 1
    c.occurrence[entry, 0] = position
    c.occurrence[entry, 1] = c.newest[row]
    c.newest[row] = entry
    if not c.is_live[row]:
        c.is_live[row] = True
        c.live[c.sizes[2]] = row
        c.sizes[2] += 1


@njit(cache=True)
def _enter_all(c):
    for position in range(c.symbol.size):
        if c.right[position] >= 0:
            _enter(c, position)


@njit(cache=True)
def _leave(c, position):
    row = _row(c, np.int64(c.symbol[position]), np.int64(c.symbol[c.right[position]]))
    c.counts[row] -= c.weight[position]


@njit(cache=True)
def best_pair(c, min_count, by_likelihood, first_seen):
    """Left and right symbol of the best pair and its count, (-1, -1, 0) where none is left.

    Score: the count, or count / (frequency of left * frequency of right). Ties: the pair entered
    first, or the one of the smaller left id, then of the smaller right id.
    """
    best = -1
    best_score = 0.0
    k = 0
    while k < c.sizes[2]:
        row = c.live[k]
        count = c.counts[row]
        if count <= 0:
            c.is_live[row] = False
            c.sizes[2] -= 1
            c.live[k] = c.live[c.sizes[2]]
            continue
        k += 1
        if count < min_count:
            continue
        a, b = c.pairs[row, 0], c.pairs[row, 1]
        score = np.float64(count)
        if by_likelihood:
            score /= np.float64(c.frequency[a]) * np.float64(c.frequency[b])
        if score < best_score:
            continue
        if score == best_score and best >= 0:
            p, q = c.pairs[best, 0], c.pairs[best, 1]
            if row > best if first_seen else (a > p or (a == p and b > q)):
                continue
        best = row
        best_score = score
    if best < 0:
        return np.int64(-1), np.int64(-1), np.int64(0)
    return c.pairs[best, 0], c.pairs[best, 1], c.counts[best]


@njit(cache=True)
def merge(c, a, b, new):
    """Replace each pair (a, b), left to right, by the symbol `new`."""
    row = _row(c, a, b)
    n = 0
    entry = c.newest[row]
    while entry >= 0:
        n += 1
        entry = c.occurrence[entry, 1]
    positions = np.empty(n, np.int64)
    entry = c.newest[row]
    for k in range(n):
        positions[k] = c.occurrence[entry, 0]
        entry = c.occurrence[entry, 1]
    positions.sort()
    c.newest[row] = -1
    for position in positions:
        other = c.right[position]
        if other < 0 or c.symbol[position] != a or c.symbol[other] != b:
            continue
        before, after = c.left[position], c.right[other]
        _leave(c, position)
        if before >= 0:
            _leave(c, before)
        if after >= 0:
            _leave(c, other)
        c.frequency[a] -= c.weight[position]
        c.frequency[b] -= c.weight[position]
        c.frequency[new] += c.weight[position]
        c.symbol[position] = new
        c.symbol[other] = -1
        c.right[position] = after
        if before >= 0:
            _enter(c, before)
        if after >= 0:
            c.left[after] = position
            _enter(c, position)
