"""Tokenizers: text to integer ids and back.

A recipe (`ByteBPE(vocab_size=8192)`) trains on texts and returns a `Tokenizer`; the recipe is the
technique, the tokenizer what it makes. Ids are uint32 arrays of shape (T,); a batch is one flat
array and the offsets of its texts.

What every member satisfies (tests/contracts/test_tokenizers.py):
- `decode(encode(x)) == x` for every string when `lossless`;
- `encode_batch(xs)` is `encode` of each text, one after the other;
- special tokens inside text are data unless allowed by name;
- `load(save())` gives the same ids; nothing depends on hash order; training is deterministic.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from impls.tokenizers import _files
from impls.tokenizers._agreement import agreement
from impls.tokenizers._files import TokenizerFileError, load
from impls.tokenizers._special import checked_special, split_special

__all__ = [
    "Ids",
    "NoExport",
    "Ragged",
    "Tokenizer",
    "TokenizerFileError",
    "TokenizerPeer",
    "TokenizerRecipe",
    "agreement",
    "checked_special",
    "load",
    "split_special",
]

Ids = NDArray[np.uint32]  # (T,)


class Ragged(NamedTuple):
    """Sequences of unequal length; text n is ids[offsets[n]:offsets[n + 1]]."""

    ids: Ids  # (total T,)
    offsets: NDArray[np.int64]  # (N + 1,)

    def __getitem__(self, n: Any) -> Any:
        return self.ids[self.offsets[n] : self.offsets[n + 1]]


class NoExport(ValueError):  # noqa: N818  (not always a mistake: a missing counterpart)
    """This tokenizer has no meaning in the asked format."""


class Tokenizer(ABC):
    """What training makes: ids for texts, texts for ids."""

    recipe: "TokenizerRecipe"
    lossless: bool  # decode(encode(x)) == x for every string x
    special_tokens: Mapping[str, int]  # text of a special token -> its id
    unk_id: int | None = None  # id standing for what the vocabulary cannot spell

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of ids, special tokens included; every id is below it."""

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> Ids:
        """Ids of one text, (T,) uint32; it is cut at the special tokens that are allowed.

        Raises:
            ValueError: if `allowed_special` names a token this tokenizer does not have, or if the
                text holds a lone surrogate.
        """
        if not allowed_special:
            return self.encode_batch([text]).ids
        pieces = split_special(text, allowed_special, self.special_tokens)
        encoded = self.encode_batch(pieces[::2])
        ids: list[Ids] = [encoded[0]]
        for n, special in enumerate(pieces[1::2]):
            ids += [np.array([self.special_tokens[special]], np.uint32), encoded[n + 1]]
        return np.concatenate(ids)

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> Ragged:
        """Ids of many texts, special tokens in them taken as data."""

    def encode_bytes(self, data: bytes) -> Ids:
        """Ids of UTF-8 data; where the technique works on bytes, of any data.

        Raises:
            UnicodeDecodeError: if the data is not UTF-8 and the technique works on characters.
        """
        return self.encode(data.decode())

    @abstractmethod
    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        """Bytes the ids stand for.

        Raises:
            ValueError: if an id is not below `vocab_size`.
        """

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """Text the ids stand for; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def checked(self, ids: Sequence[int] | Ids) -> list[int]:
        """The ids as integers.

        Raises:
            ValueError: if one is not an id of this tokenizer.
        """
        array = np.asarray(ids)
        if array.size and (array.dtype.kind not in "iu" or array.min() < 0):
            raise ValueError(f"ids must be non-negative integers, got {array.tolist()[:8]}")
        if array.size and array.max() >= self.vocab_size:
            raise ValueError(f"id {array.max()} is not below vocab_size {self.vocab_size}")
        return list(array.tolist())

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """Bytes one id adds to a text in the middle of it."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """JSON of all that training learned."""

    @classmethod
    @abstractmethod
    def from_state(cls, recipe: Any, state: dict[str, Any]) -> Self:
        """The tokenizer `state()` was taken from."""

    def save(self, path: Path) -> None:
        """Write one JSON file that `load` reads."""
        _files.save(self, path)

    def to_hf_json(self) -> str:
        """This tokenizer as a Hugging Face `tokenizer.json`.

        Raises:
            NoExport: where the technique has no counterpart there.
        """
        raise NoExport(f"{type(self).__name__} has no Hugging Face form")

    def to_tiktoken(self) -> dict[bytes, int]:
        """Token bytes to rank, as tiktoken's `mergeable_ranks`.

        Raises:
            NoExport: where the technique is not byte-level BPE.
        """
        raise NoExport(f"{type(self).__name__} is not byte-level BPE, so tiktoken cannot run it")

    def log_probability(self, ids: Sequence[int] | Ids) -> float:
        """Natural log of the probability the technique's own model gives the ids.

        Raises:
            NoExport: where the technique has no probability model.
        """
        raise NoExport(f"{type(self).__name__} has no probability model")

    def sample(self, text: str, rng: np.random.Generator) -> Ids:
        """One random segmentation of the text.

        Raises:
            NoExport: where segmentation is deterministic.
        """
        raise NoExport(f"{type(self).__name__} has one segmentation of a text")


class TokenizerRecipe(ABC):
    """How to make a tokenizer: a frozen dataclass whose fields are the full specification.

    Fields share their names and meanings across the family: `vocab_size` (special tokens
    included), `normalizer`, `pattern` (the pre-tokenizer), `special_tokens`, `tie_rule`.
    """

    tokenizer_class: ClassVar[type[Tokenizer]]  # what `train` returns and `load` restores

    @abstractmethod
    def train(self, texts: Iterable[str]) -> Tokenizer:
        """A tokenizer learned from the texts, the same for the same texts in the same order.

        Raises:
            ValueError: if the corpus is empty or the vocabulary cannot hold the alphabet.
        """


class TokenizerPeer(ABC):
    """A canonical library behind the same interface, running our vocabulary or training its own."""

    trains: ClassVar[bool] = False  # the library has a trainer of its own

    @abstractmethod
    def adopt(self, tokenizer: Tokenizer) -> Tokenizer:
        """The library's tokenizer with exactly this vocabulary.

        Raises:
            NoExport: if the library cannot hold it.
        """

    def train(self, texts: Iterable[str], recipe: TokenizerRecipe) -> Tokenizer:
        """The library's own training under the recipe's specification.

        Raises:
            NoExport: if the library has no trainer.
        """
        raise NoExport(f"{type(self).__name__} has no trainer")
