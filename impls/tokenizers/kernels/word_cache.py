"""Words counted, and words remembered with their ids.

Words lie one after the other in one byte array; `ends` are their ends. The cache is a direct-mapped
table of eight 64-bit numbers a row: a word of at most 31 bytes with its length (the key), up to six
ids of 32 bits, how many, and a note the technique may use. A new word replaces the one in its row,
so the cache is bounded and never cleared.
"""

import numpy as np
from numba import njit

from impls.tokenizers.kernels.memory import load64

MAX_BYTES = 31  # longest word that fits a row
MAX_IDS = 6
ROWS = 1 << 16  # 4 MiB
_MIX = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xC2B2AE3D27D4EB4F - (1 << 64)
_MIX_2 = 0x165667B19E3779F9
_MIX_3 = 0x27D4EB2F165667C5


def new_cache():
    """An empty cache, (8 ROWS,) int64."""
    return np.zeros(8 * ROWS, np.int64)


@njit(cache=True, inline="always")
def _part(base, start, size):
    """Up to eight bytes of a word, zero where it has ended."""
    if size <= 0:
        return np.int64(0)
    part = np.int64(load64(base, start))
    return part if size >= 8 else part & ((np.int64(1) << (8 * size)) - 1)


@njit(cache=True, inline="always")
def key_of(base, start, size):
    """The four numbers a word of 1 to MAX_BYTES bytes is, and the start of its row."""
    a = _part(base, start, size)
    b = _part(base, start + 8, size - 8)
    c = _part(base, start + 16, size - 16)
    d = _part(base, start + 24, size - 24) | size << 56
    mixed = a * _MIX + b * _MIX_1 + c * _MIX_2 + d * _MIX_3
    return a, b, c, d, ((mixed >> 40) & (ROWS - 1)) * 8


@njit(cache=True, inline="always")
def recall(cache, key, out, n):
    """Write the ids remembered for a word at out[n:]; how many there are then, -1 if unknown."""
    a, b, c, d, row = key
    if cache[row] != a or cache[row + 1] != b or cache[row + 2] != c or cache[row + 3] != d:
        return np.int64(-1)
    n_ids = cache[row + 7] & 0xFF
    for k in range(n_ids):
        out[n + k] = cache[row + 4 + (k >> 1)] >> (32 * (k & 1))
    return n + n_ids


@njit(cache=True, inline="always")
def note_of(cache, key):
    """The note remembered with a word."""
    return cache[key[4] + 7] >> 8


@njit(cache=True, inline="always")
def remember(cache, key, out, first, n, note):
    """Keep the ids out[first:n] of a word, 1 to MAX_IDS of them, and a note of up to 55 bits."""
    row = key[4]
    cache[row] = key[0]
    cache[row + 1] = key[1]
    cache[row + 2] = key[2]
    cache[row + 3] = key[3]
    for k in range(4, 7):
        cache[row + k] = 0
    for k in range(n - first):
        cache[row + 4 + (k >> 1)] |= np.int64(out[first + k]) << (32 * (k & 1))
    cache[row + 7] = note << 8 | (n - first)


@njit(cache=True)
def count(data, ends):
    """Distinct words in order of first sight: index of the first of them, how often it occurs."""
    n_slots = 64
    while n_slots < 2 * ends.size:
        n_slots *= 2
    slots = np.full(n_slots, -1, np.int64)
    first = np.empty(ends.size, np.int64)
    counts = np.zeros(ends.size, np.int64)
    n_distinct = 0
    start = np.int64(0)
    for word in range(ends.size):
        end = np.int64(ends[word])
        mixed = end - start
        for k in range(start, end):
            mixed = (mixed ^ np.int64(data[k])) * _MIX
            mixed ^= mixed >> 29
        at = mixed & (n_slots - 1)
        while slots[at] >= 0:
            other = first[slots[at]]
            other_start = np.int64(ends[other - 1]) if other > 0 else np.int64(0)
            if ends[other] - other_start == end - start:
                k = 0
                while k < end - start and data[start + k] == data[other_start + k]:
                    k += 1
                if k == end - start:
                    break
            at = (at + 1) & (n_slots - 1)
        if slots[at] < 0:
            slots[at] = n_distinct
            first[n_distinct] = word
            n_distinct += 1
        counts[slots[at]] += 1
        start = end
    return first[:n_distinct], counts[:n_distinct]
