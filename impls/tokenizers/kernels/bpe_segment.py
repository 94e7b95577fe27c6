"""Byte-pair encoding of one word: from its symbols straight to what the merges leave of them.

A sequence of tokens is the segmentation of a word exactly if every two neighbours are the
segmentation of their own text: the first merge across a boundary would otherwise also happen in
the two alone. So no merge is carried out. From left to right the longest token is taken that may
follow the one before; where none may, the last token taken gives way to a shorter one. The tokens
up to a place are always the segmentation of the text before it, of which there is one, so a place
that was left once is never visited again and the cost is linear in the length of the word.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from impls.tokenizers.kernels.memory import address, load8, load64
from impls.tokenizers.kernels.scan import code_point
from impls.tokenizers.kernels.words import mix

SHORT = 256  # symbols of a word that needs no scratch of its own

NONE = np.uint64(0xFFFFFFFFFFFFFFFF)
ID = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


class Vocabulary(NamedTuple):
    """What training learned, as arrays; the tables hold pairs of left << 32 | right, value."""

    pairs: np.ndarray  # (P, 2) uint64: a pair of tokens, the token they make; P a power of two
    trie: np.ndarray  # (T, 2) uint64: a node and a symbol, the node they lead to; likewise
    tokens: np.ndarray  # (V + 1, 2) uint64: left << 32 | right, symbols << 32 | longest prefix
    alphabet: np.ndarray  # (256,) or (0x110000,) uint32: id of a byte or code point
    finals: np.ndarray  # the same for the last one of a word


class Work(NamedTuple):
    """Scratch for one word."""

    symbols: np.ndarray  # (n,) uint32
    left: np.ndarray  # (n + 1,) bool, all False between words: no boundary is here
    guesses: np.ndarray  # (G, 2) uint64: see `_segment`; all ones at first


@njit(cache=True)
def enter(table, left, right, value):
    """Enter a pair into a table that has room, unless it is there."""
    pair = left << HALF | right
    s = np.int64(mix(pair)) & (len(table) - 1)
    while table[s, 0] != NONE and table[s, 0] != pair:
        s = (s + 1) & (len(table) - 1)
    if table[s, 0] == NONE:
        table[s, 0] = pair
        table[s, 1] = value


@njit(cache=True)
def find(table, mask, left, right):
    """Value of a pair, or NONE; `table` is an address."""
    pair = left << HALF | right
    s = np.int64(mix(pair)) & mask
    entry = load64(table, 16 * s)
    while entry != pair:
        if entry == NONE:
            return NONE
        s = (s + 1) & mask
        entry = load64(table, 16 * s)
    return load64(table, 16 * s + 8)


@njit(cache=True)
def _may_follow(second, first, tokens, pairs, mask, limit):
    """Whether merges of ids below `limit` leave the two tokens apart; addresses of the tables.

    Going back in time, the younger token falls into its parts, the right one first where both are
    of the same merge. The two at the boundary then may not have made a token before that moment.
    """
    while True:
        made = find(pairs, mask, first, second)
        if made < limit:
            return False
        younger = max(first, second)
        parts = load64(tokens, 16 * np.int64(younger))
        if parts == NONE:  # a symbol; so is the other one, or no merge has this one
            return True
        if first > second:
            limit = first
            first = parts & ID
        else:
            limit = second + np.uint64(1)
            second = parts >> HALF


@njit(cache=True)
def enter_merges(merges, n_symbols, pairs, tokens):
    """Fill the empty table of pairs and the tokens (but for prefixes); merge m makes n_symbols + m.

    A token that the merges before it never leave, since another one has its text, has no length.
    """
    pairs[:] = NONE
    tokens[:, 0] = NONE
    tokens[:, 1] = np.uint64(1) << HALF
    for m in range(len(merges)):
        new = np.uint64(n_symbols + m)
        left, right = np.uint64(merges[m, 0]), np.uint64(merges[m, 1])
        enter(pairs, left, right, new)
        sizes = tokens[left, 1] >> HALF, tokens[right, 1] >> HALF
        tokens[new, 0] = left << HALF | right
        tokens[new, 1] = (sizes[0] + sizes[1]) << HALF
        known = sizes[0] > 0 and sizes[1] > 0
        if not known or not _may_follow(
            right, left, address(tokens), address(pairs), len(pairs) - 1, new
        ):
            tokens[new, 1] = 0


@njit(cache=True)
def enter_prefixes(order, tokens, trie):
    """Fill the empty trie and the longest prefix of each token; False if the trie is too small.

    order: the tokens by length. Node t of the trie is token t, so a prefix that is a token has its
    node before a longer token passes through; other nodes have greater numbers.
    """
    trie[:] = NONE
    n_nodes = len(tokens)
    table, mask = address(trie), len(trie) - 1
    stack = np.empty(len(tokens), np.uint64)
    for token in order:
        if tokens[token, 0] == NONE or tokens[token, 1] >> HALF == 0:
            continue
        node = prefix = tokens[token, 0] >> HALF
        stack[0] = tokens[token, 0] & ID
        depth = 1
        while depth > 0:
            depth -= 1
            part = stack[depth]
            if tokens[part, 0] != NONE:
                stack[depth] = tokens[part, 0] & ID
                stack[depth + 1] = tokens[part, 0] >> HALF
                depth += 2
                continue
            below = find(table, mask, node, part)
            if below == NONE:
                below = np.uint64(token if depth == 0 else n_nodes)
                n_nodes += depth > 0
                enter(trie, node, part, below)
                if 2 * n_nodes > len(trie):
                    return False
            node = below
            if node < len(tokens) and depth > 0:
                prefix = node
        tokens[token, 1] |= prefix
    return True


@njit(cache=True)
def symbols_of(data, start, stop, alphabet, finals, symbols):
    """Write the symbols of a word and return their number."""
    n = 0
    if len(alphabet) == 256:
        for i in range(start, stop):
            symbols[n] = alphabet[load8(data, i)]
            n += 1
        symbols[n - 1] = finals[load8(data, stop - 1)]
        return n
    i = start
    while i < stop:
        point, width = code_point(data, i, stop)
        i += width
        symbols[n] = alphabet[point] if i < stop else finals[point]
        n += 1
    return n


@njit(cache=True)
def symbols_of_words(words, starts, alphabet, finals, out, out_starts):
    """Write the symbols of words[starts[w]:starts[w + 1]] for every w, one after the other."""
    data = address(words)
    for w in range(len(starts) - 1):
        at = out_starts[w]
        n = symbols_of(data, starts[w], starts[w + 1], alphabet, finals, out[at:])
        out_starts[w + 1] = at + n


@njit(cache=True)
def _segment(symbols, n, left, guesses, vocabulary, out):
    """Write the tokens of symbols[:n] to `out` and return their number.

    Which token is tried first changes the time and not the result. Where the longest one failed,
    the one taken instead is tried first when the same two tokens meet again.
    """
    pairs, pair_mask = address(vocabulary.pairs), len(vocabulary.pairs) - 1
    trie, trie_mask = address(vocabulary.trie), len(vocabulary.trie) - 1
    tokens, n_tokens = address(vocabulary.tokens), np.uint64(len(vocabulary.tokens))
    start = count = 0
    went_back = False
    while start < n:
        node = longest = np.uint64(symbols[start])
        for p in range(start + 1, n):
            node = find(trie, trie_mask, node, np.uint64(symbols[p]))
            if node == NONE:
                break
            if node < n_tokens:
                longest = node
        last = np.uint64(out[count - 1]) if count > 0 else ID
        meeting = last << HALF | longest
        guess = np.int64(mix(meeting)) & (len(guesses) - 1)
        known = guesses[guess, 0] == meeting
        token = guesses[guess, 1] if known else longest
        while True:
            row = load64(tokens, 16 * np.int64(token) + 8)
            stop = start + np.int64(row >> HALF)
            if not left[stop] and (
                known or count == 0 or _may_follow(token, last, tokens, pairs, pair_mask, NONE)
            ):
                if token != longest:
                    guesses[guess, 0] = meeting
                    guesses[guess, 1] = token
                out[count] = np.uint32(token)
                count += 1
                start = stop
                break
            if known:
                known = False
                token = longest
            elif stop > start + 1:
                token = row & ID
            else:
                left[start] = True
                went_back = True
                count -= 1
                start -= np.int64(load64(tokens, 16 * np.int64(last) + 8) >> HALF)
                break
    if went_back:
        left[: n + 1] = False
    return count


@njit(cache=True)
def segment(data, start, stop, vocabulary, work, out):
    """Write the tokens of one word to `out` and return their number."""
    symbols, left, guesses = work
    if stop - start > SHORT:
        symbols = np.empty(stop - start, np.uint32)
        left = np.zeros(stop - start + 1, np.bool_)
    n = symbols_of(data, start, stop, vocabulary.alphabet, vocabulary.finals, symbols)
    return _segment(symbols, n, left, guesses, vocabulary, out)
