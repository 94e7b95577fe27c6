"""Byte-pair encoding of texts: a bounded cache of finished words before the segmentation."""

from typing import NamedTuple

import numpy as np
from numba import njit

from impls.tokenizers.kernels.bpe_segment import segment
from impls.tokenizers.kernels.memory import address, load8, load64
from impls.tokenizers.kernels.words import key, same, slot_of

LONGEST_CACHED = 255  # bytes

_ID = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


class Cache(NamedTuple):
    """Finished words; emptied when full, so its size is the limit."""

    slots: np.ndarray  # (S, 4) uint64: key, and up to three ids or where they are
    arena: np.ndarray  # uint8: the words of more than 15 bytes
    ids: np.ndarray  # uint32: ids of words with more than three, or with more than 15 bytes
    used: np.ndarray  # (3,) int64: slots, arena bytes, ids


@njit(cache=True)
def _keep(cache, data, start, stop, low, high, s, ids):
    """Enter a finished word, emptying the cache first if it does not fit."""
    n, count = stop - start, len(ids)
    slots, arena, pool, used = cache
    pooled = n > 15 or count > 3
    full = 2 * used[0] >= len(slots) or used[1] + n > len(arena) or used[2] + count > len(pool)
    if full:
        slots[:] = 0
        used[:] = 0
        s = slot_of(low, high, len(slots) - 1)
    slots[s, 0] = low
    slots[s, 1] = high
    if pooled:
        slots[s, 2] = np.uint64(used[1]) << _HALF | np.uint64(used[2])
        pool[used[2] : used[2] + count] = ids
        used[2] += count
        if n > 15:
            for i in range(n):
                arena[used[1] + i] = load8(data, start + i)
            used[1] += n
    else:
        slots[s, 2] = np.uint64(ids[0]) | np.uint64(ids[1] if count > 1 else 0) << _HALF
    third = np.uint64(ids[2] if count == 3 and not pooled else 0)
    slots[s, 3] = third | np.uint64(count) << _HALF
    used[0] += 1


@njit(cache=True)
def _find(slots, mask, low, high, data, start, stop, arena):
    """The slot of a word, or the free slot where it belongs; `slots` and `arena` are addresses."""
    s = slot_of(low, high, mask)
    while load64(slots, 32 * s + 8) != 0:
        if load64(slots, 32 * s) == low and load64(slots, 32 * s + 8) == high:
            at = np.int64(load64(slots, 32 * s + 16) >> _HALF)
            if stop - start < 16 or same(data + start, stop - start, arena + at):
                break
        s = (s + 1) & mask
    return s


@njit(cache=True)
def encode(text_bytes, spans, vocabulary, cache, work, cursor, out, out_offsets):
    """Append the ids of the words in `spans`; `cursor` holds the ids and texts done so far.

    `out` needs room for an id per byte and two more.
    """
    n, text = cursor
    data, slots, arena = address(text_bytes), address(cache.slots), address(cache.arena)
    mask = len(cache.slots) - 1
    for row in range(len(spans)):
        start, stop = spans[row, 0], spans[row, 1]
        if start < 0:
            text += 1
            out_offsets[text] = n
            continue
        if stop - start > LONGEST_CACHED:
            n += segment(data, start, stop, vocabulary, work, out[n:])
            continue
        low, high = key(data, start, stop)
        s = _find(slots, mask, low, high, data, start, stop, arena)
        first, second = load64(slots, 32 * s + 16), load64(slots, 32 * s + 24)
        count = np.int64(second >> _HALF)
        if count == 0:
            count = segment(data, start, stop, vocabulary, work, out[n:])
            _keep(cache, data, start, stop, low, high, s, out[n : n + count])
        elif count <= 3 and stop - start < 16:
            out[n] = np.uint32(first)
            out[n + 1] = np.uint32(first >> _HALF)
            out[n + 2] = np.uint32(second)
        else:
            at = np.int64(first & _ID)
            for k in range(count):
                out[n + k] = cache.ids[at + k]
        n += count
    cursor[0] = n
    cursor[1] = text
