"""Words as keys: a table of distinct words with their counts, and look-ups in it.

A word of up to 15 bytes *is* its key (two 64-bit loads and its length), so finding it compares two
registers; a longer one is found by hash and then compared byte by byte.
"""

import numpy as np
from numba import njit

from impls.tokenizers.kernels.memory import address, load64

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, as in Fibonacci hashing
_LONG = np.uint64(1 << 63)
_ONE = np.uint64(1)
_EIGHT = np.uint64(8)
_HALF = np.uint64(32)
_TOP = np.uint64(56)
_WORD = np.uint64(64)


@njit(cache=True)
def mix(x):
    """A well spread 64-bit hash of a 64-bit value."""
    x = (x ^ (x >> _HALF)) * _MULTIPLIER
    return x ^ (x >> _HALF)


@njit(cache=True)
def _low(x, n):
    """The first n < 8 bytes of a little-endian load."""
    return x & ((_ONE << (_EIGHT * np.uint64(n))) - _ONE)


@njit(cache=True)
def key(data, start, stop):
    """(low, high) 64-bit key of the bytes [start, stop) at address `data`.

    Equal keys mean equal words up to 15 bytes; `high` is never 0.
    """
    n = stop - start
    if n < 8:
        return _low(load64(data, start), n), np.uint64(n) << _TOP
    low = load64(data, start)
    if n < 16:
        return low, _low(load64(data, start + 8), n - 8) | np.uint64(n) << _TOP
    low = mix(low)
    for i in range(start + 8, stop - 7, 8):
        low = mix(low ^ load64(data, i)) + _MULTIPLIER
    return mix(low ^ load64(data, stop - 8)), _LONG | np.uint64(n)


@njit(cache=True)
def slot_of(low, high, mask):
    """Where the search for a key begins in a table of mask + 1 slots, a power of two."""
    return np.int64(mix(low ^ mix(high))) & mask


@njit(cache=True)
def same(a, n, b):
    """Whether the n >= 8 bytes at two addresses are equal."""
    for i in range(0, n - 7, 8):
        if load64(a, i) != load64(b, i):
            return False
    return load64(a, n - 8) == load64(b, n - 8)


@njit(cache=True)
def _find(data, start, stop, slots, arena, starts):
    """(slot, True) of the word, or (free slot, False).

    slots (S, 3) uint64: low, high, word; a slot with high 0 is free.
    """
    low, high = key(data, start, stop)
    mask = len(slots) - 1
    s = slot_of(low, high, mask)
    while slots[s, 1] != 0:
        if slots[s, 0] == low and slots[s, 1] == high:
            at = address(arena) + starts[np.int64(slots[s, 2])]
            if stop - start < 16 or same(data + start, stop - start, at):
                return s, True
        s = (s + 1) & mask
    return s, False


@njit(cache=True)
def _fill(slots, s, data, start, stop, word):
    slots[s, 0], slots[s, 1] = key(data, start, stop)
    slots[s, 2] = word


@njit(cache=True)
def count(data, spans, row, slots, arena, starts, counts, n_words):
    """Add the words of spans[row:] to the table; (rows done, words).

    It returns before a word that does not fit: the caller enlarges the table and calls again.
    Word w is arena[starts[w]:starts[w + 1]] and occurred counts[w] times; the arena needs eight
    spare bytes.
    """
    while row < len(spans):
        start, stop = spans[row, 0], spans[row, 1]
        if start >= 0:
            s, known = _find(address(data), start, stop, slots, arena, starts)
            if not known:
                used = starts[n_words]
                full = used + (stop - start) + 16 > len(arena) or n_words + 2 > len(starts)
                if full or 2 * n_words >= len(slots):
                    break
                arena[used : used + stop - start] = data[start:stop]
                _fill(slots, s, address(data), start, stop, n_words)
                starts[n_words + 1] = used + stop - start
                counts[n_words] = 0
                n_words += 1
            counts[np.int64(slots[s, 2])] += 1
        row += 1
    return row, n_words


@njit(cache=True)
def index(slots, arena, starts, n_words):
    """Enter words 0 to n_words - 1, which are distinct, into empty slots."""
    for word in range(n_words):
        start, stop = starts[word], starts[word + 1]
        s, _ = _find(address(arena), start, stop, slots, arena, starts)
        _fill(slots, s, address(arena), start, stop, word)


@njit(cache=True)
def look_up(data, spans, slots, arena, starts, unknown, cursor, out, out_offsets):
    """Write the number of each word, or `unknown`; `cursor` holds the ids and texts done so far."""
    n, text = cursor
    for row in range(len(spans)):
        start, stop = spans[row, 0], spans[row, 1]
        if start < 0:
            text += 1
            out_offsets[text] = n
            continue
        s, known = _find(address(data), start, stop, slots, arena, starts)
        out[n] = np.uint32(slots[s, 2]) if known else np.uint32(unknown)
        n += 1
    cursor[0] = n
    cursor[1] = text
