"""A library running our vocabulary: what every peer returns."""

import os
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from impls.tokenizers.interface import Ids, NoExport, Ragged, Tokenizer

BatchEncoder = Callable[[Sequence[str]], Ragged]
Decoder = Callable[[list[int]], bytes]


class Adopted(Tokenizer):
    """Encoding and decoding by the library; names and sizes from the tokenizer it adopted.

    Special tokens in text are data; an allowed one is cut out before the library sees the text.
    """

    def __init__(
        self, original: Tokenizer, library: Any, encode_batch: BatchEncoder, decode: Decoder
    ) -> None:
        """Args: library: the library's own object, for what this interface leaves out."""
        self.original = original
        self.library = library
        self.recipe = original.recipe
        self.lossless = original.lossless
        self.special_tokens = original.special_tokens
        self.unk_id = original.unk_id
        self._encode_batch = encode_batch
        self._decode = decode

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return self.original.vocab_size

    def encode_batch(self, texts: Sequence[str]) -> Ragged:
        """Ids of many texts, by the library's fastest call."""
        return self._encode_batch(texts)

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        """Bytes the ids stand for, by the library."""
        return self._decode(self.checked(ids))

    def token_bytes(self, token: int) -> bytes:
        """Bytes one id adds to a text."""
        return self.original.token_bytes(token)

    def state(self) -> dict[str, Any]:
        """The adopted vocabulary."""
        return self.original.state()

    @classmethod
    def from_state(cls, recipe: Any, state: dict[str, Any]) -> Self:
        """Not possible.

        Raises:
            NoExport: always.
        """
        raise NoExport("a peer is not saved: save and load our tokenizer, then adopt it")


def one_thread() -> None:
    """Hold the libraries in Rust to one thread.

    Hugging Face tokenizers reads the first variable at every call; the pool of Rayon reads the
    second once, at the first parallel call of a library.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"


def ragged(rows: Sequence[Sequence[int]]) -> Ragged:
    """Lists of ids as one array."""
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)), out=offsets[1:])
    flat = [id_ for row in rows for id_ in row]
    return Ragged(np.array(flat, np.uint32), offsets)
