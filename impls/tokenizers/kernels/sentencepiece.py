"""SentencePiece's normalizer, and its BPE: of all neighbours the best-scored piece merges first."""

import numpy as np
from numba import njit

from impls.tokenizers.kernels.memory import address
from impls.tokenizers.kernels.piece_trie import child
from impls.tokenizers.kernels.unigram import width
from impls.tokenizers.kernels.word_cache import (
    MAX_BYTES,
    MAX_IDS,
    key_of,
    recall,
    remember,
)


@njit(cache=True, inline="always")
def _longest_key(data, at, stop, units):
    """Length and value of the longest key of the double array that starts at `at`, or (0, 0)."""
    length, value = np.int64(0), np.int64(0)
    if units.size == 0:
        return length, value
    unit = np.int64(units[0])
    node = (unit >> 10) << ((unit & 512) >> 6)
    for k in range(at, stop):
        node ^= np.int64(data[k])
        if node >= units.size:
            break
        unit = np.int64(units[node])
        if unit & 0x800000FF != data[k]:
            break
        node ^= (unit >> 10) << ((unit & 512) >> 6)
        if unit >> 8 & 1 and node < units.size:
            length = k + 1 - at
            value = np.int64(units[node]) & 0x7FFFFFFF
    return length, value


@njit(cache=True)
def normalize(data, text_ends, units, replacements, prefix, squeeze, suffix, escape, out, out_ends):
    """The library's normalization of each text; False if `out` is too small.

    prefix: add a space in front (behind if `suffix`); squeeze: drop leading, trailing and repeated
    spaces; escape: write a space as U+2581.
    """
    n = np.int64(0)
    at = np.int64(0)
    for text in range(text_ends.size):
        stop = text_ends[text]
        first = n
        started = False
        after_space = squeeze
        while at < stop:
            if n + 16 > out.size:
                return False
            length, k = _longest_key(data, at, stop, units)
            source = replacements
            last = k
            if length > 0:
                while last < replacements.size and replacements[last] != 0:
                    last += 1
            else:
                length = np.int64(width(data[at]))
                source, k, last = data, at, at + length
            at += length
            if n + 3 * (last - k) + 16 > out.size:
                return False
            if not started:
                if squeeze and last - k == 1 and source[k] == 0x20:
                    continue
                started = True
                if prefix and not suffix:
                    n = _put_space(out, n, escape)
            while after_space and k < last and source[k] == 0x20:
                k += 1
            if k == last:
                continue
            for m in range(k, last):
                if source[m] == 0x20:
                    n = _put_space(out, n, escape)
                else:
                    out[n] = source[m]
                    n += 1
            after_space = squeeze and source[last - 1] == 0x20
        while squeeze and n > first and _ends_in_space(out, first, n, escape):
            n -= 3 if escape else 1
        if suffix and prefix and started:
            n = _put_space(out, n, escape)
        out_ends[text] = n
    return True


@njit(cache=True, inline="always")
def _put_space(out, n, escape):
    if not escape:
        out[n] = 0x20
        return n + 1
    out[n] = 0xE2
    out[n + 1] = 0x96
    out[n + 2] = 0x81
    return n + 3


@njit(cache=True, inline="always")
def _ends_in_space(out, first, n, escape):
    if not escape:
        return out[n - 1] == 0x20
    return n - first >= 3 and out[n - 3] == 0xE2 and out[n - 2] == 0x96 and out[n - 1] == 0x81


@njit(cache=True, inline="always")
def _find(data, start, stop, slots, nodes):
    node = np.int64(0)
    for k in range(start, stop):
        node = child(slots, node, np.int64(data[k]))
        if node < 0:
            return np.int64(-1)
    return np.int64(nodes[node, 0])


@njit(cache=True)
def _push(keys, sizes, n, key, size):
    at = n
    while at > 0 and keys[(at - 1) >> 1] > key:
        keys[at] = keys[(at - 1) >> 1]
        sizes[at] = sizes[(at - 1) >> 1]
        at = (at - 1) >> 1
    keys[at] = key
    sizes[at] = size


@njit(cache=True)
def _pop(keys, sizes, n):
    """Move the smallest key of a heap of n out of it, behind the others."""
    top_key, top_size = keys[0], sizes[0]
    key, size = keys[n - 1], sizes[n - 1]
    at = 0
    while 2 * at + 1 < n - 1:
        below = 2 * at + 1
        if below + 1 < n - 1 and keys[below + 1] < keys[below]:
            below += 1
        if keys[below] >= key:
            break
        keys[at] = keys[below]
        sizes[at] = sizes[below]
        at = below
    keys[at] = key
    sizes[at] = size
    return top_key, top_size


@njit(cache=True)
def _merge(data, start, end, slots, nodes, ranks, left, right, keys, sizes):
    """Symbols of one word: right[k] is the end of the symbol at byte k, -1 inside symbols."""
    n = end - start
    right[: n + 1] = -1
    k = np.int64(0)
    before = np.int64(-1)
    while k < n:
        left[k] = before
        right[k] = k + width(data[start + k])
        before = k
        k = np.int64(right[k])
    n_heap = 0
    k = np.int64(0)
    while right[k] < n:
        stop = np.int64(right[right[k]])
        piece = _find(data, start + k, start + stop, slots, nodes)
        if piece >= 0:
            _push(keys, sizes, n_heap, np.int64(ranks[piece]) << 32 | k, stop - k)
            n_heap += 1
        k = np.int64(right[k])
    while n_heap > 0:
        key, size = _pop(keys, sizes, n_heap)
        n_heap -= 1
        k = key & 0xFFFFFFFF
        if right[k] < 0 or right[k] >= n or right[right[k]] != k + size:
            continue
        right[right[k]] = -1
        right[k] = k + size
        if right[k] < n:
            left[right[k]] = k
        for first in (np.int64(left[k]), k):
            if first < 0 or right[first] >= n:
                continue
            stop = np.int64(right[right[first]])
            piece = _find(data, start + first, start + stop, slots, nodes)
            if piece >= 0:
                _push(keys, sizes, n_heap, np.int64(ranks[piece]) << 32 | first, stop - first)
                n_heap += 1


@njit(cache=True)
def encode_bpe(data, ends, text_words, slots, nodes, ranks, unk_id, byte_ids, cache, out, id_ends):
    """Ids of words: `out` receives them, `id_ends[w]` is how many there are up to word w.

    ranks (V,): 0 for the piece of the highest score, equal for equal scores.
    """
    longest = np.int64(0)
    for word in range(ends.size):
        longest = max(longest, np.int64(ends[word]) - (np.int64(ends[word - 1]) if word > 0 else 0))
    left = np.empty(longest + 1, np.int32)
    right = np.empty(longest + 1, np.int32)
    keys = np.empty(3 * longest + 1, np.int64)
    sizes = np.empty(3 * longest + 1, np.int64)
    base = address(data)
    n = np.int64(0)
    start = np.int64(0)
    word = np.int64(0)
    for text in range(text_words.size):
        floor = n
        while word < text_words[text]:
            end = np.int64(ends[word])
            first = n
            short = end - start <= MAX_BYTES
            known = np.int64(-1)
            key = key_of(base, start, min(end - start, MAX_BYTES))
            if short:
                known = recall(cache, key, out, n)
            if known >= 0:
                n = known
            else:
                _merge(data, start, end, slots, nodes, ranks, left, right, keys, sizes)
                unknown = False
                k = start
                while k < end:
                    stop = start + right[k - start]
                    piece = _find(data, k, stop, slots, nodes)
                    unknown |= piece < 0
                    if piece >= 0:
                        out[n] = piece
                        n += 1
                    elif byte_ids.size > 0:
                        for m in range(k, stop):
                            out[n] = byte_ids[data[m]]
                            n += 1
                    elif n == floor or out[n - 1] != unk_id:
                        out[n] = unk_id
                        n += 1
                    k = np.int64(stop)
                if short and not unknown and n - first <= MAX_IDS:
                    remember(cache, key, out, first, n, np.int64(0))
            id_ends[word] = n
            word += 1
            start = end
    return n
