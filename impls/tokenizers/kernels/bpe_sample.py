"""Byte-pair encoding of one word in which merges fail at random."""

import numpy as np
from numba import njit

from impls.tokenizers.kernels.bpe_segment import HALF, ID, NONE, find, symbols_of
from impls.tokenizers.kernels.memory import address


@njit(cache=True)
def _push(heap, n, item):
    while n > 0 and heap[(n - 1) >> 1] > item:
        heap[n] = heap[(n - 1) >> 1]
        n = (n - 1) >> 1
    heap[n] = item


@njit(cache=True)
def _pop(heap, n):
    """Take the least of heap[:n]; the caller counts n down."""
    least, item = heap[0], heap[n - 1]
    n -= 1
    p = 0
    while 2 * p + 1 < n:
        child = 2 * p + 1
        if child + 1 < n and heap[child + 1] < heap[child]:
            child += 1
        if item <= heap[child]:
            break
        heap[p] = heap[child]
        p = child
    heap[p] = item
    return least


@njit(cache=True)
def _uniform(state):
    """The next number in [0, 1) of a SplitMix64 stream."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.float64((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


@njit(cache=True)
def _segment(symbols, n, pairs, dropout, random):
    """Merge symbols[:n] in place; O(n log n). Each merge fails with probability `dropout`.

    An item is token << 32 | position: first the token learned first, then the leftmost. A failed
    merge is set aside until another one is applied, which is one more draw for every possible
    merge in each step.
    """
    after = np.arange(1, n + 1)
    before = np.arange(-1, n - 1)
    merges = np.full(n, NONE)
    heap = np.empty(3 * n, np.uint64)
    aside = np.empty(3 * n, np.uint64)
    size = failed = 0
    table, mask = address(pairs), len(pairs) - 1
    for p in range(n - 1):
        merges[p] = find(table, mask, np.uint64(symbols[p]), np.uint64(symbols[p + 1]))
        if merges[p] != NONE:
            _push(heap, size, merges[p] << HALF | np.uint64(p))
            size += 1
    while size > 0:
        item = _pop(heap, size)
        size -= 1
        p = np.int64(item & ID)
        if merges[p] != item >> HALF:
            continue
        if _uniform(random) < dropout:
            aside[failed] = item
            failed += 1
            continue
        for k in range(failed):
            _push(heap, size + k, aside[k])
        size += failed
        failed = 0
        symbols[p] = np.uint32(merges[p])
        gone = after[p]
        merges[gone] = NONE
        after[p] = after[gone]
        if after[p] < n:
            before[after[p]] = p
        for q, r in ((before[p], p), (p, after[p])):
            if q >= 0 and r < n:
                merges[q] = find(table, mask, np.uint64(symbols[q]), np.uint64(symbols[r]))
                if merges[q] != NONE:
                    _push(heap, size, merges[q] << HALF | np.uint64(q))
                    size += 1
            elif q >= 0:
                merges[q] = NONE
    p = count = 0
    while p < n:
        symbols[count] = symbols[p]
        count += 1
        p = after[p]
    return count


@njit(cache=True)
def sample(text_bytes, spans, vocabulary, dropout, random, out):
    """Write one random segmentation of the words in `spans` and return its length."""
    n = 0
    data = address(text_bytes)
    for row in range(len(spans)):
        start, stop = spans[row, 0], spans[row, 1]
        if start >= 0:
            symbols = np.empty(stop - start, np.uint32)
            m = symbols_of(data, start, stop, vocabulary.alphabet, vocabulary.finals, symbols)
            m = _segment(symbols, m, vocabulary.pairs, dropout, random)
            out[n : n + m] = symbols[:m]
            n += m
    return n
