"""Greedy longest match, word by word."""

import numpy as np
from numba import njit

from impls.tokenizers.kernels.memory import address
from impls.tokenizers.kernels.piece_trie import child
from impls.tokenizers.kernels.word_cache import MAX_BYTES, MAX_IDS, key_of, recall, remember


@njit(cache=True)
def _match(data, start, end, slots, nodes, unk, max_chars, out, n):
    """Write the ids of one word at out[n:]; how many ids there are then."""
    n_chars = 0
    for k in range(start, end):
        n_chars += (data[k] & 0xC0) != 0x80
    first = n
    at = start
    while at < end and n_chars <= max_chars:
        node = np.int64(0 if at == start else 1)
        piece = -1
        stop = at
        for k in range(at, end):
            node = child(slots, node, np.int64(data[k]))
            if node < 0:
                break
            if nodes[node, 0] >= 0:
                piece = nodes[node, 0]
                stop = k + 1
        if piece < 0:
            break
        out[n] = piece
        n += 1
        at = stop
    if at < end:
        out[first] = unk
        n = first + 1
    return n


@njit(cache=True)
def encode(data, ends, slots, nodes, unk, max_chars, cache, out, id_ends):
    """Ids of words: `out` receives them, `id_ends[w]` is how many there are up to word w.

    data, ends: the words; slots, nodes: the trie of pieces; cache: see kernels/word_cache.
    """
    base = address(data)
    n = np.int64(0)
    start = np.int64(0)
    for word in range(ends.size):
        end = np.int64(ends[word])
        if end - start > MAX_BYTES:
            n = _match(data, start, end, slots, nodes, unk, max_chars, out, n)
        else:
            key = key_of(base, start, end - start)
            known = recall(cache, key, out, n)
            if known < 0:
                known = _match(data, start, end, slots, nodes, unk, max_chars, out, n)
                if known - n <= MAX_IDS:
                    remember(cache, key, out, n, known, np.int64(0))
            n = known
        id_ends[word] = n
        start = end
    return n
