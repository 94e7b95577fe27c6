"""Repeated substrings of a corpus of words, from its sorted suffixes, and the E-step over them.

The corpus is one array of letters > 0 with a 0 after each word. Nothing longer than `depth` letters
matters, so suffixes are sorted by that many letters only: log2(depth) radix steps.
"""

import numpy as np
from numba import njit

_TINY = 1e-140  # forward and backward sums are kept above this by counted rescaling
_HUGE = 1e140


def sort_suffixes(letters, depth):
    """Start positions of all suffixes in the order of their first `depth` letters, (n,) int64."""
    rank = letters.astype(np.int64)
    length = 1
    order = np.argsort(rank, kind="stable")
    while length < depth:
        later = np.zeros_like(rank)
        later[:-length] = rank[length:] + 1
        # Nothing behind the end of a word may matter, so words stay together where they end.
        key = rank * (int(rank.max()) + 2) + later
        order = np.argsort(key, kind="stable")
        step = np.diff(key[order], prepend=key[order[0]]) != 0
        rank[order] = np.cumsum(step)
        length *= 2
    return order


@njit(cache=True)
def common_prefixes(letters, order, depth):
    """Letters each sorted suffix shares with the one before, within its word, at most `depth`."""
    shared = np.zeros(order.size + 1, np.int32)
    for i in range(1, order.size):
        a, b = order[i - 1], order[i]
        k = 0
        while k < depth and letters[a + k] != 0 and letters[a + k] == letters[b + k]:
            k += 1
        shared[i] = k
    return shared


@njit(cache=True, inline="always")
def _emit(found, m, length, first, last):
    found[m, 0] = length
    found[m, 1] = first
    found[m, 2] = last
    return m + 1


@njit(cache=True)
def repeats(letters, order, shared, depth):
    """Substrings that no letter always follows: (length, first, last) rows of sorted suffixes."""
    n = order.size
    found = np.empty((2 * n, 3), np.int32)
    stack = np.empty((depth + 2, 2), np.int32)  # open substrings: length, first row
    stack[0] = 0
    top = 0
    m = 0
    for i in range(n):
        a = order[i]
        rest = 0  # letters up to the end of the word
        while rest <= depth and letters[a + rest] != 0:
            rest += 1
        if max(shared[i], shared[i + 1]) < rest <= depth:
            m = _emit(found, m, rest, i, i)
        first = i
        while stack[top, 0] > shared[i + 1]:
            m = _emit(found, m, stack[top, 0], stack[top, 1], i)
            first = stack[top, 1]
            top -= 1
        if stack[top, 0] < shared[i + 1]:
            top += 1
            stack[top, 0] = shared[i + 1]
            stack[top, 1] = first
    return found[:m]


@njit(cache=True)
def edges(order, found, n_letters):
    """Where each found substring starts: offsets (n + 1,) and the substrings by position."""
    offsets = np.zeros(n_letters + 1, np.int64)
    for piece in range(found.shape[0]):
        for i in range(found[piece, 1], found[piece, 2] + 1):
            offsets[order[i] + 1] += 1
    offsets = np.cumsum(offsets)
    pieces = np.empty(offsets[-1], np.int32)
    free = offsets[:-1].copy()
    for piece in range(found.shape[0]):
        for i in range(found[piece, 1], found[piece, 2] + 1):
            pieces[free[order[i]]] = piece
            free[order[i]] += 1
    return offsets, pieces


@njit(cache=True)
def keep_edges(offsets, pieces, renumbered):
    """The edges whose piece has a new number >= 0, under these numbers; works in place."""
    n = 0
    start = offsets[0]
    for at in range(offsets.size - 1):
        stop = offsets[at + 1]
        for edge in range(start, stop):
            piece = renumbered[pieces[edge]]
            if piece >= 0:
                pieces[n] = piece
                n += 1
        start = stop
        offsets[at + 1] = n
    return pieces[:n]


@njit(cache=True)
def _rescale(values, first, last):
    """Multiply a window by _HUGE if all of it is below _TINY."""
    for k in range(first, last):
        if values[k] >= _TINY:
            return 0
    for k in range(first, last):
        values[k] *= _HUGE
    return 1


@njit(cache=True)
def expect(letters, weights, offsets, pieces, lengths, p, depth):
    """Expected count of each piece and the log-likelihood of the corpus (the E-step).

    weights (n,): how often the word around each letter occurs; p (V,): piece probabilities.
    """
    counts = np.zeros(p.size)
    total = 0.0
    alpha = np.zeros(letters.size + depth)
    beta = np.zeros(letters.size + depth)
    scale = np.zeros(letters.size + depth, np.int32)
    start = 0
    for end in range(letters.size):
        if letters[end] != 0:
            continue
        alpha[start : end + depth] = 0.0
        alpha[start] = 1.0
        shift = 0
        for at in range(start, end):
            if alpha[at] < _TINY:
                shift += _rescale(alpha, at, at + depth)
            scale[at] = shift
            for edge in range(offsets[at], offsets[at + 1]):
                alpha[at + lengths[pieces[edge]]] += alpha[at] * p[pieces[edge]]
        z = alpha[end]
        z_shift = shift
        total += weights[start] * (np.log(z) + z_shift * np.log(_TINY))
        beta[end] = 1.0
        shift = 0
        for at in range(end - 1, start - 1, -1):
            share = weights[start] * alpha[at] / z
            if z_shift != scale[at] + shift:
                share *= _HUGE ** (z_shift - scale[at] - shift)
            beta[at] = 0.0
            for edge in range(offsets[at], offsets[at + 1]):
                onward = p[pieces[edge]] * beta[at + lengths[pieces[edge]]]
                beta[at] += onward
                counts[pieces[edge]] += share * onward
            if beta[at] < _TINY:
                shift += _rescale(beta, at, min(at + depth, end + 1))
        start = end + 1
    return counts, total


@njit(cache=True)
def respell(places, offsets, pieces, lengths, p, counts):
    """Loss of removing each piece: count * log(p / probability of its best other spelling).

    places (V,): a position where each piece occurs. Removal moves the count to the other pieces,
    so their probabilities are taken after it.
    """
    depth = lengths.max()
    loss = np.empty(p.size)
    total = counts.sum()
    best = np.empty(depth + 1)
    back = np.empty(depth + 1, np.int64)
    for piece in range(p.size):
        n = lengths[piece]
        best[: n + 1] = -np.inf
        best[0] = 0.0
        for at in range(n):
            for edge in range(offsets[places[piece] + at], offsets[places[piece] + at + 1]):
                other = pieces[edge]
                stop = at + lengths[other]
                if stop <= n and other != piece and best[at] + np.log(p[other]) > best[stop]:
                    best[stop] = best[at] + np.log(p[other])
                    back[stop] = other
        if best[n] == -np.inf:
            loss[piece] = np.inf
            continue
        n_others = 0
        other_log = 0.0
        stop = n
        while stop > 0:
            other = back[stop]
            other_log += np.log(counts[other] + counts[piece])
            n_others += 1
            stop -= lengths[other]
        own_log = np.log(counts[piece]) - np.log(total)
        other_log -= n_others * np.log(total + counts[piece] * (n_others - 1))
        loss[piece] = counts[piece] * (own_log - other_log)
    return loss
