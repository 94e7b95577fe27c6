"""Unigram segmentation: the best path through the lattice of pieces, and random paths.

A piece ends at a trie node; a character no piece equals is an edge of its own with score `unk`.
Positions are bytes from the start of a word. `single` repeats the float32 sums of the sentencepiece
library, whose rounding depends on the score `prefix` of all that came before in the text.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from impls.tokenizers.kernels.memory import address
from impls.tokenizers.kernels.piece_trie import child
from impls.tokenizers.kernels.word_cache import (
    MAX_BYTES,
    MAX_IDS,
    key_of,
    note_of,
    recall,
    remember,
)

_NOTE_UNIT = 65536.0  # a note is a margin in units of 2**-16
_NOTE_MAX = 2.0**40
_UNKNOWN = -2
REBASE = -100000.0  # below this the library starts its sums anew, to keep them fine
EACH_SPACE, SPACE_RUNS, ESCAPES = range(3)  # rules for the start of a word


class Lexicon(NamedTuple):
    """Pieces and their scores."""

    slots: NDArray[np.int64]  # trie, see kernels/piece_trie
    nodes: NDArray[np.int32]
    scores: NDArray[np.float64]  # (V,)
    unk: float
    unk_id: int
    byte_ids: NDArray[np.int32]  # the 256 byte tokens, or none
    single: bool


class Path(NamedTuple):
    """Best paths to each end of a character, by bytes from the start of the word."""

    best: NDArray[np.float64]  # score
    gap: NDArray[np.float64]  # lead of the last piece over its best rival
    back: NDArray[np.int32]  # start of the last piece
    piece: NDArray[np.int32]  # the last piece, -2 for an unknown character


@njit(cache=True)
def new_path(ends):
    """Room for the longest of the words."""
    n = np.int64(1)
    start = np.int64(0)
    for end in ends:
        n = max(n, end - start + 1)
        start = np.int64(end)
    return Path(np.empty(n), np.empty(n), np.empty(n, np.int32), np.empty(n, np.int32))


@njit(cache=True, inline="always")
def width(lead):
    """Bytes of the UTF-8 character with this first byte."""
    return 1 + (lead >= 0xC0) + (lead >= 0xE0) + (lead >= 0xF0)


@njit(cache=True, inline="always")
def _is_space(byte):
    return byte == 0x20 or 0x09 <= byte <= 0x0A or byte == 0x0D


@njit(cache=True, inline="always")
def _is_escape(data, at, stop):
    """Whether U+2581 stands at `at`."""
    return at + 2 < stop and data[at] == 0xE2 and data[at + 1] == 0x96 and data[at + 2] == 0x81


@njit(cache=True)
def word_ends(data, text_ends, rule, ends, text_words):
    """Ends of words, which start where the rule says.

    EACH_SPACE: at each whitespace character; SPACE_RUNS: at the first of some and, if another
    character follows, at the last; ESCAPES: at the first of some U+2581.
    Fills ends (of each word) and text_words (words up to each text); returns how many words.
    """
    n = 0
    start = np.int64(0)
    for text in range(text_ends.size):
        stop = text_ends[text]
        for k in range(start + 1, stop):
            if rule == ESCAPES:
                starts = _is_escape(data, k, stop)
                if starts and k - start >= 3:
                    starts = not _is_escape(data, k - 3, stop)
            else:
                starts = _is_space(data[k])
                if starts and rule == SPACE_RUNS and _is_space(data[k - 1]):
                    starts = k + 1 < stop and not _is_space(data[k + 1])
            if starts:
                ends[n] = k
                n += 1
        if stop > start:
            ends[n] = stop
            n += 1
        text_words[text] = n
        start = stop
    return n


@njit(cache=True)
def _best_path(data, start, end, lexicon, prefix, path):
    """Fill `path` with the best segmentation of data[start:end] up to each character's end.

    One automaton walks over the bytes; its suffix links list the pieces that end at each place,
    longest first, so equal scores go to the longest last piece.
    """
    slots, nodes, scores = lexicon.slots, lexicon.nodes, lexicon.scores
    unk, single = lexicon.unk, lexicon.single
    best, gap, back, piece = path.best, path.gap, path.back, path.piece
    best[0] = prefix
    node = np.int64(0)
    step = np.int64(0)  # bytes of the character so far
    for k in range(1, end - start + 1):
        byte = np.int64(data[np.uint64(start + k - 1)])
        step = step + 1 if byte & 0xC0 == 0x80 else np.int64(1)
        below = child(slots, node, byte)
        while below < 0 and node != 0:
            node = np.int64(nodes[np.uint64(node), 3])
            below = child(slots, node, byte)
        node = max(below, 0)
        if start + k < end and data[np.uint64(start + k)] & 0xC0 == 0x80:
            continue
        high, lead, origin, token = -np.inf, np.inf, np.int64(0), np.int64(_UNKNOWN)
        depth = np.int64(0)
        match = node if nodes[np.uint64(node), 0] >= 0 else np.int64(nodes[np.uint64(node), 2])
        while match != 0 or depth != step:
            score = unk
            depth = step
            if match != 0:
                depth = np.int64(nodes[np.uint64(match), 1])
                score = scores[np.uint64(nodes[np.uint64(match), 0])]
            score += best[np.uint64(k - depth)]
            if single:
                score = np.float64(np.float32(score))
            if score > high:
                lead = score - high
                high = score
                origin = k - depth
                token = np.int64(nodes[np.uint64(match), 0]) if match != 0 else np.int64(_UNKNOWN)
            else:
                lead = min(lead, high - score)
            match = np.int64(nodes[np.uint64(match), 2])
        best[k] = high
        if single and high < REBASE:
            best[: k + 1] -= high
        gap[k] = lead
        back[k] = origin
        piece[k] = token


@njit(cache=True)
def _write(data, start, end, lexicon, path, floor, out, n):
    """Write the ids of the path ending at `end` at out[n:]; unknown ones from `floor` on are one.

    Returns how many ids there are then, and whether a character was unknown.
    """
    unk_id, byte_ids, back, piece = lexicon.unk_id, lexicon.byte_ids, path.back, path.piece
    k = end - start
    after = np.int64(-1)
    while k >= 0:  # turn the back pointers around
        before = np.int64(back[k]) if k > 0 else np.int64(-1)
        back[k] = after
        after = k
        k = before
    unknown = False
    k = np.int64(0)
    while k < end - start:
        stop = np.int64(back[k])
        token = piece[stop]
        if token != _UNKNOWN:
            out[n] = token
            n += 1
        else:
            if byte_ids.size > 0:
                for m in range(k, stop):
                    out[n] = byte_ids[data[start + m]]
                    n += 1
            elif n == floor or out[n - 1] != unk_id:
                out[n] = unk_id
                n += 1
            unknown = True
        k = stop
    return n, unknown


@njit(cache=True)
def _margin(length, gap, back):
    """Smallest lead of a piece on the best path over its rivals."""
    margin = np.inf
    k = length
    while k > 0:
        margin = min(margin, gap[k])
        k = np.int64(back[k])
    return margin


@njit(cache=True)
def _uncached(data, start, end, lexicon, prefix, path, floor, out, n):
    """Write the ids of one word at out[n:].

    Returns how many ids there are then, the score up to here, and the margin by which the path
    won: -1 where the word must not be remembered.
    """
    _best_path(data, start, end, lexicon, prefix, path)
    length = end - start
    margin = 0.0
    if lexicon.single:
        margin = _margin(length, path.gap, path.back) - _noise(prefix, lexicon.unk)
        prefix = path.best[length]
    n, unknown = _write(data, start, end, lexicon, path, floor, out, n)
    return n, prefix, -1.0 if unknown else margin


@njit(cache=True, inline="always")
def _noise(prefix, unk):
    """Bound on what float32 rounding adds to the difference of two paths through one word.

    Each path has at most 31 sums, each off by half a step of the largest value.
    """
    return (abs(prefix) + 32.0 * abs(unk)) * 2.0**-18


@njit(cache=True)
def encode(data, ends, text_words, lexicon, cache, out, id_ends):
    """Ids of words: `out` receives them, `id_ends[w]` is how many there are up to word w."""
    single = lexicon.single
    base = address(data)
    path = new_path(ends)
    n, start, word = np.int64(0), np.int64(0), np.int64(0)
    for text in range(text_words.size):
        floor = n
        prefix = 0.0
        while word < text_words[text]:
            end = np.int64(ends[word])
            first = n
            if prefix < REBASE:
                prefix = 0.0
            known = np.int64(-1)
            key = key_of(base, start, min(end - start, MAX_BYTES))
            if end - start <= MAX_BYTES:
                known = recall(cache, key, out, n)
                margin = note_of(cache, key) / _NOTE_UNIT
                if single and known >= 0 and margin <= _noise(prefix, lexicon.unk):
                    known = np.int64(-1)
            if known >= 0:
                n = known
                if single:
                    for k in range(first, n):
                        prefix = np.float64(np.float32(prefix + lexicon.scores[out[k]]))
            else:
                n, prefix, margin = _uncached(
                    data, start, end, lexicon, prefix, path, floor if single else n, out, n
                )
                if end - start <= MAX_BYTES and n - first <= MAX_IDS and margin >= 0.0:
                    note = np.int64(min(margin * _NOTE_UNIT, _NOTE_MAX))
                    remember(cache, key, out, first, n, note)
            id_ends[word] = n
            word += 1
            start = end
    return n


@njit(cache=True)
def lattice(data, slots, nodes):
    """All edges of the lattice of `data`, those that leave one position side by side.

    Returns offsets (n bytes + 1,), and per edge where it stops and its piece (-2: unknown).
    """
    offsets = np.zeros(data.size + 1, np.int64)
    stops = np.empty(0, np.int64)
    pieces = np.empty(0, np.int64)
    for fill in range(2):
        if fill:
            stops = np.empty(offsets[-1], np.int64)
            pieces = np.empty(offsets[-1], np.int64)
        n = 0
        for at in range(data.size):
            whole = (data[at] & 0xC0) == 0x80  # inside a character: no edges
            step = np.int64(width(data[at]))
            node = np.int64(-1 if whole else 0)
            k = np.int64(at)
            while node >= 0 and k < data.size:
                node = child(slots, node, np.int64(data[k]))
                k += 1
                if node >= 0 and nodes[node, 0] >= 0:
                    whole |= k - at == step
                    if fill:
                        stops[n] = k
                        pieces[n] = nodes[node, 0]
                    n += 1
            if not whole:
                if fill:
                    stops[n] = at + step
                    pieces[n] = _UNKNOWN
                n += 1
            offsets[at + 1] = n
    return offsets, stops, pieces


@njit(cache=True)
def backward(offsets, stops, weights):
    """Log of the summed weight of all paths from each position to the end, (n bytes + 1,)."""
    after = np.full(offsets.size, -np.inf)
    after[-1] = 0.0
    for at in range(offsets.size - 2, -1, -1):
        for edge in range(offsets[at], offsets[at + 1]):
            weight = weights[edge] + after[stops[edge]]
            high = max(after[at], weight)
            if high > -np.inf:
                after[at] = high + np.log(np.exp(after[at] - high) + np.exp(weight - high))
    return after


@njit(cache=True)
def draw(offsets, stops, weights, after, uniform):
    """Edges of a random path, its probability proportional to exp of its summed weights."""
    path = np.empty(offsets.size, np.int64)
    n = 0
    at = np.int64(0)
    while at < offsets.size - 1:
        left = uniform[n]
        for edge in range(offsets[at], offsets[at + 1]):
            path[n] = edge
            left -= np.exp(weights[edge] + after[stops[edge]] - after[at])
            if left < 0.0:
                break
        at = stops[path[n]]
        n += 1
    return path[:n]
