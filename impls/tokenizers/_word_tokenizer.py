"""Texts in, words out: what every tokenizer here that works word by word shares.

Texts are taken a megabyte at a time, so buffers stay small whatever the batch.
"""

import re
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from impls.tokenizers._bert import code_table, is_reordered
from impls.tokenizers._normalize import Normalizer, normalize
from impls.tokenizers._utf8 import utf8
from impls.tokenizers.interface import Ids, Ragged, Tokenizer
from impls.tokenizers.kernels import bert_scan, piece_trie, unigram, word_cache

CHUNK = 1 << 20  # characters


class Words(NamedTuple):
    """Words of a few texts, one after the other."""

    data: NDArray[np.uint8]  # (n bytes,) UTF-8
    ends: NDArray[np.int32]  # (W,) where each word ends in data
    text_words: NDArray[np.int64]  # (N,) words up to the end of each text


class Trie(NamedTuple):
    """Pieces as a byte trie, see kernels/piece_trie."""

    slots: NDArray[np.int64]
    nodes: NDArray[np.int32]  # (N, 4)


class WordTokenizer(Tokenizer):
    """A tokenizer whose one compiled operation is the ids of a few texts."""

    @abstractmethod
    def encode_chunk(self, texts: Sequence[str]) -> Ragged:
        """Ids of about a megabyte of texts."""

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> Ids:
        """Ids of one text, (T,) uint32; an allowed special token in it becomes its own id.

        Raises:
            ValueError: if `allowed_special` names a token this tokenizer does not have.
        """
        if not allowed_special:
            return self.encode_chunk((text,)).ids
        unknown = sorted(set(allowed_special) - set(self.special_tokens))
        if unknown:
            raise ValueError(f"no special tokens {unknown}; there are {list(self.special_tokens)}")
        longest_first = sorted(allowed_special, key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
        ids = [self.encode(part) for part in parts[::2]]
        for k, special in enumerate(parts[1::2]):
            ids[k] = np.append(ids[k], np.uint32(self.special_tokens[special]))
        return np.concatenate(ids)

    def encode_batch(self, texts: Sequence[str]) -> Ragged:
        """Ids of many texts, special tokens in them taken as data."""
        parts = [self.encode_chunk(chunk) for chunk in chunks(texts)]
        if len(parts) == 1:
            return parts[0]
        offsets = [np.zeros(1, np.int64)]
        total = 0
        for part in parts:
            offsets.append(part.offsets[1:] + total)
            total += len(part.ids)
        ids = np.concatenate([np.zeros(0, np.uint32), *(part.ids for part in parts)])
        return Ragged(ids, np.concatenate(offsets))

    def encode_bytes(self, data: bytes) -> Ids:
        """Ids of UTF-8 data.

        Raises:
            UnicodeDecodeError: if the data is not UTF-8.
        """
        return self.encode(data.decode("utf-8"))

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        """Bytes the ids stand for.

        Raises:
            ValueError: if an id is not below `vocab_size`.
        """
        return b"".join(self.token_bytes(int(token)) for token in ids)

    def require_token(self, token: int) -> int:
        """The token itself.

        Raises:
            ValueError: if it is not an id of this tokenizer.
        """
        if not 0 <= token < self.vocab_size:
            raise ValueError(f"id {token} is not below the vocabulary size {self.vocab_size}")
        return token


def chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in runs of at least CHUNK characters, the last one shorter."""
    chunk: list[str] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if size >= CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def joined(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """UTF-8 of the texts one after the other, eight readable bytes beyond, and where each ends.

    Raises:
        ValueError: if a text holds a lone surrogate.
    """
    data = utf8(texts)
    return data.bytes[: data.size], data.offsets[1:]


def bert_words(texts: Sequence[str], normalizer: Normalizer) -> Words:
    """Words of BERT's pre-tokenization of the normalized texts."""
    table = code_table(normalizer)
    if normalizer in {"nfc", "nfkc"}:
        texts = [normalize(normalizer, text) for text in texts]
    data, text_ends = joined(texts)
    while True:
        # NFD turns at most 2 bytes into 3, and one 3-byte syllable into three letters of 3 bytes.
        out = np.empty(3 * len(data) + 8, np.uint8)
        ends = np.empty(len(out), np.int32)
        text_words = np.empty(len(texts), np.int64)
        missing, n_words = bert_scan.scan(
            data, text_ends, table.entries, table.sequences, out, ends, text_words
        )
        if missing < 0:
            n_bytes = ends[n_words - 1] if n_words else 0
            return Words(out[:n_bytes], ends[:n_words], text_words)
        if table.uncased and is_reordered(chr(missing)):
            return bert_words([normalize("bert", text) for text in texts], "none")
        table.fill(missing)


def whitespace_words(texts: Sequence[str], rule: int) -> Words:
    """Words of the texts, which start at whitespace by one of the rules of kernels/unigram."""
    return split(*joined(texts), rule)


def split(data: NDArray[np.uint8], text_ends: NDArray[np.int64], rule: int) -> Words:
    """Words of texts that lie one after the other, by one of the rules of kernels/unigram."""
    ends = np.empty(len(data), np.int32)
    text_words = np.empty(len(text_ends), np.int64)
    n = unigram.word_ends(data, text_ends, rule, ends, text_words)
    return Words(data, ends[:n], text_words)


def count_words(texts: Iterable[str], scan: Callable[[Sequence[str]], Words]) -> dict[bytes, int]:
    """How often each word of the corpus occurs, in order of first sight."""
    total: dict[bytes, int] = {}
    for chunk in chunks(texts):
        found = scan(chunk)
        data = found.data.tobytes()
        first, counts = word_cache.count(found.data, found.ends)
        starts = np.where(first > 0, found.ends[first - 1], 0)
        for start, end, n in zip(
            starts.tolist(), found.ends[first].tolist(), counts.tolist(), strict=True
        ):
            word = data[start:end]
            total[word] = total.get(word, 0) + n
    return total


def ragged(out: Ids, id_ends: NDArray[np.int64], text_words: NDArray[np.int64]) -> Ragged:
    """Ids of texts, from ids of words and the words of each text."""
    offsets = np.zeros(len(text_words) + 1, np.int64)
    offsets[1:] = np.concatenate((offsets[:1], id_ends))[text_words]
    return Ragged(out[: offsets[-1]].copy(), offsets)


def build_trie(pieces: Sequence[bytes], roots: Sequence[int]) -> Trie:
    """The trie of pieces; the value of each is its place in the sequence, empty ones left out."""
    data = np.frombuffer(bytearray().join(pieces), np.uint8)  # writable, as all others
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    return Trie(*piece_trie.build(data, ends, np.array(roots, np.int64)))
