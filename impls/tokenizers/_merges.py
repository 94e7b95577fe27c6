"""Byte-pair encoding, learned and applied: what all members of the BPE branch share.

Ids below S, the number of symbols, are bytes or characters; id S + m is what merge m makes;
special tokens follow.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from impls.tokenizers._patterns import Pattern, spans
from impls.tokenizers._utf8 import Utf8, joined, utf8
from impls.tokenizers.interface import Ids, Ragged, Tokenizer
from impls.tokenizers.kernels import bpe_encode, bpe_sample, bpe_segment, bpe_train

TieRule = Literal["id_pair", "byte_pair", "greatest_text"]
"""Which of the pairs that are most frequent is merged.

id_pair: the least (left id, right id), as Hugging Face tokenizers does; byte_pair: the same with
single bytes compared by value, as rustbpe does; greatest_text: the greatest (left text, right
text) by code point, as subword-nmt does.
"""

CACHE_SLOTS: Final = 1 << 18  # of 32 bytes; emptied when half of them are taken
CACHE_POOL: Final = 1 << 20  # bytes of long words; ids of words of many tokens


class SpelledWords(NamedTuple):
    """Distinct words as ids; word w is symbols[starts[w]:starts[w + 1]]."""

    symbols: NDArray[np.int32]  # (N,)
    starts: NDArray[np.int64]  # (W + 1,)
    counts: NDArray[np.int64]  # (W,)


def learn_merges(
    words: SpelledWords,
    texts: Sequence[bytes],
    n_merges: int,
    min_frequency: int,
    tie_rule: TieRule,
) -> NDArray[np.int64]:
    """(left, right, count) of up to `n_merges` merges, (M, 3).

    Args:
        words: Distinct words as ids.
        texts: Text of each id that a word may hold; the first merge makes id len(texts).
        n_merges: Merges to learn; fewer where pairs run out.
        min_frequency: Least count of a pair that is merged.
        tie_rule: See `TieRule`.
    """
    symbols, starts, counts = words
    n, base = len(symbols), len(texts)
    before = np.arange(-1, n - 1, dtype=np.int32)
    after = np.arange(1, n + 1, dtype=np.int32)
    before[starts[:-1]] = -1
    after[starts[1:] - 1] = -1
    linked = bpe_train.Words(symbols, before, after, np.repeat(counts, np.diff(starts)))
    # Joining two symbols creates at most two occurrences, and happens at most N times.
    arrays = (np.empty(3 * n, kind) for kind in ("i4", "i4", "i8", "i4", "i4", "i4", "i4"))
    pairs = bpe_train.Pairs(np.full(1 << 12, -1, np.int32), *arrays, np.zeros(2, np.int64))
    text_starts = np.zeros(base + n_merges + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=text_starts[1 : base + 1])
    keys = np.arange(base + n_merges)
    if tie_rule == "byte_pair":
        keys[:256] = [text[0] for text in texts[:256]]
    tokens = bpe_train.Tokens(keys, joined(texts).bytes, text_starts)
    tie = bpe_train.BY_TEXT if tie_rule == "greatest_text" else bpe_train.BY_KEY
    return bpe_train.learn(linked, pairs, tokens, tie, base, n_merges, min_frequency)


def merged_pieces(pieces: Sequence[bytes], merges: NDArray[np.int64]) -> list[bytes]:
    """Text of every id, from those of the symbols."""
    pieces = list(pieces)
    for left, right in merges.tolist():
        pieces.append(pieces[left] + pieces[right])
    return pieces


class Segmenter:
    """Merges applied to texts, with a cache of the words already seen.

    The cache takes at most 13 MiB; it never changes a result. Not safe to share between threads.
    """

    def __init__(
        self,
        pattern: Pattern,
        merges: NDArray[np.int64],
        n_symbols: int,
        alphabet: NDArray[np.uint32],
        finals: NDArray[np.uint32],
    ) -> None:
        """Args: merges: (left, right), (M, 2); alphabet, finals: see `bpe_segment.Vocabulary`."""
        self.pattern = pattern
        self._vocabulary = _vocabulary(merges, n_symbols, alphabet, finals)
        self._cache = bpe_encode.Cache(
            np.zeros((CACHE_SLOTS, 4), np.uint64),
            np.empty(CACHE_POOL, np.uint8),
            np.empty(CACHE_POOL, np.uint32),
            np.zeros(3, np.int64),
        )
        self._work = bpe_segment.Work(
            np.empty(bpe_segment.SHORT, np.uint32),
            np.zeros(bpe_segment.SHORT + 1, np.bool_),
            np.full((1 << 10, 2), bpe_segment.NONE),
        )

    def encode(self, data: Utf8) -> Ragged:
        """Ids of all texts."""
        out = np.empty(data.size + 2, np.uint32)
        offsets = np.zeros(len(data.offsets), np.int64)
        cursor = np.zeros(2, np.int64)
        for block in spans(data, self.pattern):
            bpe_encode.encode(
                data.bytes, block, self._vocabulary, self._cache, self._work, cursor, out, offsets
            )
        return Ragged(out[: cursor[0]].copy(), offsets)

    def sample(self, text: str, dropout: float, rng: np.random.Generator) -> Ids:
        """Ids of one text where each merge fails with probability `dropout`."""
        data = utf8([text])
        random = rng.integers(1 << 64, size=1, dtype=np.uint64)
        out = np.empty(data.size, np.uint32)
        n = 0
        for block in spans(data, self.pattern):
            n += bpe_sample.sample(data.bytes, block, self._vocabulary, dropout, random, out[n:])
        return out[:n].copy()


def _vocabulary(
    merges: NDArray[np.int64],
    n_symbols: int,
    alphabet: NDArray[np.uint32],
    finals: NDArray[np.uint32],
) -> bpe_segment.Vocabulary:
    pairs = np.empty((1 << max(4, (4 * len(merges)).bit_length()), 2), np.uint64)
    tokens = np.empty((n_symbols + len(merges) + 1, 2), np.uint64)
    bpe_segment.enter_merges(np.ascontiguousarray(merges), n_symbols, pairs, tokens)
    order = np.argsort(tokens[:, 1], kind="stable")
    trie = np.empty((1 << (2 * len(tokens)).bit_length(), 2), np.uint64)
    while not bpe_segment.enter_prefixes(order, tokens, trie):
        trie = np.empty((2 * len(trie), 2), np.uint64)
    return bpe_segment.Vocabulary(pairs, trie, tokens, alphabet, finals)


class MergeTokenizer(Tokenizer):
    """Symbols and merges; subclasses say what a symbol is and how tokens join to text."""

    def __init__(
        self,
        recipe: Any,
        pieces: Sequence[bytes],
        merges: NDArray[np.int64],
        special_tokens: Sequence[str],
        segmenter: Segmenter,
    ) -> None:
        """Args: pieces: text of each symbol; merges: (left, right), (M, 2)."""
        self.recipe = recipe
        self.merges = merges
        self.n_symbols = len(pieces)
        self.pieces = merged_pieces(pieces, merges)
        first = len(self.pieces)
        self.special_tokens = {text: first + n for n, text in enumerate(special_tokens)}
        self.pieces += [text.encode() for text in special_tokens]
        self.segmenter = segmenter

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return len(self.pieces)

    def encode_batch(self, texts: Sequence[str]) -> Ragged:
        """Ids of many texts, special tokens in them taken as data."""
        return self.segmenter.encode(utf8(texts))

    def token_bytes(self, token: int) -> bytes:
        """Bytes one id adds to a text."""
        return self.pieces[self.checked([token])[0]]

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        """Bytes the ids stand for."""
        return b"".join(map(self.pieces.__getitem__, self.checked(ids)))
