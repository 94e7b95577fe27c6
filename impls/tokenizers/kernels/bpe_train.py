"""Learning merges: pair counts kept up to date position by position (Zouhar et al., 2306.16837).

The words are one array of symbols linked to their neighbours; each pair knows where it occurred.
A merge visits its own occurrences only, so a word of a megabyte costs what its bytes cost
elsewhere. The heap holds counts that may be out of date: they only fall without a new entry, so
the top is corrected when it is taken. O(N log N) for N symbols of distinct words.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from impls.tokenizers.kernels.words import mix

BY_KEY, BY_TEXT = range(2)

_HALF = np.uint64(32)


class Words(NamedTuple):
    """Distinct words as linked symbols; a symbol that was merged away is -1."""

    symbols: np.ndarray  # (N,) int32
    before: np.ndarray  # (N,) int32, -1 at the start of a word
    after: np.ndarray  # (N,) int32, -1 at its end
    weights: np.ndarray  # (N,) int64: how often the word occurred


class Pairs(NamedTuple):
    """Pairs in order of appearance; `used` counts pairs, then occurrences."""

    table: np.ndarray  # (H,) int32: hash table of pair numbers, -1 where free
    left: np.ndarray  # (3 N,) int32
    right: np.ndarray  # (3 N,) int32
    counts: np.ndarray  # (3 N,) int64
    newest: np.ndarray  # (3 N,) int32: last entry of the pair's list of occurrences
    positions: np.ndarray  # (3 N,) int32: an occurrence
    older: np.ndarray  # (3 N,) int32: the entry before it
    gained_in: np.ndarray  # (3 N,) int32: the last merge that made the pair more frequent
    used: np.ndarray  # (2,) int64


class Tokens(NamedTuple):
    """What ties are decided by."""

    keys: np.ndarray  # (V,) int64: the pair of least (left key, right key) wins
    texts: np.ndarray  # uint8: or the pair of greatest (left text, right text)
    starts: np.ndarray  # (V + 1,) int64 into `texts`


@njit(cache=True)
def _slot(table, left, right, pairs):
    pair = np.uint64(left) << _HALF | np.uint64(right)
    s = np.int64(mix(pair) & np.uint64(len(table) - 1))
    while table[s] >= 0:
        p = table[s]
        if pairs.left[p] == left and pairs.right[p] == right:
            break
        s = (s + 1) & (len(table) - 1)
    return s


@njit(cache=True)
def _number(table, left, right, pairs):
    """The number of a pair, entered if it is new."""
    s = _slot(table, left, right, pairs)
    if table[s] < 0:
        p = pairs.used[0]
        table[s] = p
        pairs.left[p] = left
        pairs.right[p] = right
        pairs.counts[p] = 0
        pairs.newest[p] = -1
        pairs.gained_in[p] = -1
        pairs.used[0] += 1
    return np.int64(table[s])


@njit(cache=True)
def _larger(table, pairs):
    """A table of four times the size."""
    table = np.full(4 * len(table), -1, np.int32)
    for p in range(pairs.used[0]):
        table[_slot(table, np.int64(pairs.left[p]), np.int64(pairs.right[p]), pairs)] = p
    return table


@njit(cache=True)
def _occurs(pairs, p, position):
    entry = pairs.used[1]
    pairs.positions[entry] = position
    pairs.older[entry] = pairs.newest[p]
    pairs.newest[p] = entry
    pairs.used[1] += 1


@njit(cache=True)
def _compare(a, b, tokens):
    """-1, 0 or 1 as the text of token a is before, equal to or after that of b."""
    i, j = tokens.starts[a], tokens.starts[b]
    end_a, end_b = tokens.starts[a + 1], tokens.starts[b + 1]
    while i < end_a and j < end_b:
        if tokens.texts[i] != tokens.texts[j]:
            return -1 if tokens.texts[i] < tokens.texts[j] else 1
        i += 1
        j += 1
    return -1 if j < end_b else 1 if i < end_a else 0


@njit(cache=True)
def _first(count_p, p, count_q, q, pairs, tokens, tie):
    """Whether pair p is merged before pair q."""
    if count_p != count_q:
        return count_p > count_q
    if tie == BY_TEXT:
        order = _compare(pairs.left[p], pairs.left[q], tokens)
        if order == 0:
            order = _compare(pairs.right[p], pairs.right[q], tokens)
        return order > 0
    a, b = tokens.keys[pairs.left[p]], tokens.keys[pairs.left[q]]
    if a != b:
        return a < b
    return tokens.keys[pairs.right[p]] < tokens.keys[pairs.right[q]]


@njit(cache=True)
def _push(heap, n, p, pairs, tokens, tie):
    count = pairs.counts[p]
    while n > 0:
        up = (n - 1) >> 1
        if not _first(count, p, heap[up, 0], heap[up, 1], pairs, tokens, tie):
            break
        heap[n, 0], heap[n, 1] = heap[up, 0], heap[up, 1]
        n = up
    heap[n, 0] = count
    heap[n, 1] = p


@njit(cache=True)
def _sink(heap, n, count, p, pairs, tokens, tie):
    """Put (count, p) in the place of the top of heap[:n]."""
    at = 0
    while 2 * at + 1 < n:
        child = 2 * at + 1
        if child + 1 < n and _first(
            heap[child + 1, 0],
            heap[child + 1, 1],
            heap[child, 0],
            heap[child, 1],
            pairs,
            tokens,
            tie,
        ):
            child += 1
        if not _first(heap[child, 0], heap[child, 1], count, p, pairs, tokens, tie):
            break
        heap[at, 0], heap[at, 1] = heap[child, 0], heap[child, 1]
        at = child
    heap[at, 0] = count
    heap[at, 1] = p


@njit(cache=True)
def _best(heap, n, pairs, tokens, tie):
    """(pair, heap size) after taking the pair to merge next; -1 where the heap is empty."""
    while n > 0:
        count, p = heap[0, 0], heap[0, 1]
        current = pairs.counts[p]
        if count == current and current > 0:
            _sink(heap, n - 1, heap[n - 1, 0], heap[n - 1, 1], pairs, tokens, tie)
            return p, n - 1
        if current > 0:
            _sink(heap, n, current, p, pairs, tokens, tie)
        else:
            _sink(heap, n - 1, heap[n - 1, 0], heap[n - 1, 1], pairs, tokens, tie)
            n -= 1
    return -1, 0


@njit(cache=True)
def _join(words, pairs, table, position, new, changed, n_changed):
    """Merge the symbol at `position` with the next one; pairs that gained go to `changed`."""
    symbols, before, after, weights = words
    weight = weights[position]
    gone = np.int64(after[position])
    left, right = np.int64(symbols[position]), np.int64(symbols[gone])
    for side in range(2):
        other = np.int64(before[position] if side == 0 else after[gone])
        if other < 0:
            continue
        near = np.int64(symbols[other])
        if side == 0:
            lost, gained = _number(table, near, left, pairs), _number(table, near, new, pairs)
        else:
            lost, gained = _number(table, right, near, pairs), _number(table, new, near, pairs)
        pairs.counts[lost] -= weight
        pairs.counts[gained] += weight
        _occurs(pairs, gained, other if side == 0 else position)
        changed[n_changed] = gained
        n_changed += 1
    symbols[position] = new
    symbols[gone] = -1
    after[position] = after[gone]
    if after[gone] >= 0:
        before[after[gone]] = position
    return n_changed


@njit(cache=True)
def _apply(words, pairs, table, pair, new, changed):
    """Merge every occurrence of a pair, the leftmost first where they overlap.

    Returns the number of pairs in `changed` and the table, which may have grown.
    """
    symbols, before, after, _ = words
    left, right = pairs.left[pair], pairs.right[pair]
    n_changed = 0
    entry = pairs.newest[pair]
    while entry >= 0:
        position = np.int64(pairs.positions[entry])
        entry = pairs.older[entry]
        if left == right and symbols[position] == left:
            while before[position] >= 0 and symbols[before[position]] == left:
                position = np.int64(before[position])
        while position >= 0 and symbols[position] == left:
            if after[position] < 0 or symbols[after[position]] != right:
                break
            if 2 * pairs.used[0] + 4 >= len(table):
                table = _larger(table, pairs)
            n_changed = _join(words, pairs, table, position, new, changed, n_changed)
            if left != right:
                break
            position = np.int64(after[position])
    pairs.counts[pair] = 0
    return n_changed, table


@njit(cache=True)
def _with_text(tokens, left, right, new):
    """The tokens with the text of a new one."""
    keys, texts, starts = tokens
    size = starts[left + 1] - starts[left] + starts[right + 1] - starts[right]
    at = starts[new]
    if at + size > len(texts):
        texts = np.concatenate((texts, np.empty(len(texts) + size, np.uint8)))
    for part in (left, right):
        for i in range(starts[part], starts[part + 1]):
            texts[at] = texts[i]
            at += 1
    starts[new + 1] = at
    return Tokens(keys, texts, starts)


@njit(cache=True)
def _count_pairs(words, pairs):
    """Enter every pair and occurrence of the words; the hash table."""
    table = pairs.table
    for i in range(len(words.symbols)):
        if words.after[i] >= 0:
            if 2 * pairs.used[0] + 4 >= len(table):
                table = _larger(table, pairs)
            left, right = words.symbols[i], words.symbols[words.after[i]]
            p = _number(table, np.int64(left), np.int64(right), pairs)
            pairs.counts[p] += words.weights[i]
            _occurs(pairs, p, i)
    return table


@njit(cache=True)
def learn(words, pairs, tokens, tie, base, n_merges, min_frequency):
    """(left, right, count) of the merges in order, (M <= n_merges, 3) int64.

    Merge m makes the id base + m. It ends early where no pair occurs `min_frequency` times.
    """
    table = _count_pairs(words, pairs)
    heap = np.empty((len(pairs.left), 2), np.int64)
    size = pairs.used[0]
    for p in range(size):
        _push(heap, p, p, pairs, tokens, tie)
    changed = np.empty(len(pairs.left), np.int32)
    merges = np.empty((n_merges, 3), np.int64)
    for m in range(n_merges):
        pair, size = _best(heap, size, pairs, tokens, tie)
        if pair < 0 or pairs.counts[pair] < min_frequency:
            return merges[:m]
        left, right = pairs.left[pair], pairs.right[pair]
        merges[m, 0], merges[m, 1], merges[m, 2] = left, right, pairs.counts[pair]
        if tie == BY_TEXT:
            tokens = _with_text(tokens, left, right, base + m)
        n_changed, table = _apply(words, pairs, table, pair, base + m, changed)
        for k in range(n_changed):
            p = np.int64(changed[k])
            if pairs.gained_in[p] != m and pairs.counts[p] > 0:
                pairs.gained_in[p] = m
                _push(heap, size, p, pairs, tokens, tie)
                size += 1
    return merges
