"""Characters: every frequent code point is a token; bytes spell the others, so nothing is lost.

    V <- the 256 bytes and the most frequent code points
    id(c) = 256 + rank of c by (-count, code point);  c not in V -> its UTF-8 bytes

A byte's id is its value, special tokens follow the characters. The fallback to bytes is what keeps
a vocabulary of bounded size lossless; with a vocab_size that holds every character of the corpus
it is never used there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from harness.card import Card
from impls.tokenizers._utf8 import encoded
from impls.tokenizers.interface import Ids, Ragged, Tokenizer, TokenizerRecipe, checked_special

CARD = Card(
    cls="Char",
    title="Characters",
    paper="arXiv:2103.06874",
    year=2021,
    summary="Every frequent code point is a token; rarer ones are spelled in bytes.",
    oracle="ids decode to the code points of the text, one by one",
)

_CODE_POINTS = 0x110000


class CharTokenizer(Tokenizer):
    """Code points and, for those not in the vocabulary, bytes."""

    lossless = True

    def __init__(self, recipe: "Char", characters: str) -> None:
        self.recipe = recipe
        self.characters = characters
        self._pieces = [bytes([b]) for b in range(256)] + [c.encode() for c in characters]
        first = len(self._pieces)
        self.special_tokens = {text: first + n for n, text in enumerate(recipe.special_tokens)}
        self._pieces += [text.encode() for text in recipe.special_tokens]
        self._ids = np.zeros(_CODE_POINTS, np.uint32)  # 0: spelled in bytes
        self._ids[_points(characters)] = np.arange(256, first)

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return len(self._pieces)

    def encode_batch(self, texts: Sequence[str]) -> Ragged:
        """Ids of many texts."""
        return self._encode([encoded(text) for text in texts])

    def encode_bytes(self, data: bytes) -> Ids:
        """Ids of any data; what is not UTF-8 is spelled in bytes."""
        return self._encode([data]).ids

    def _encode(self, parts: Sequence[bytes]) -> Ragged:
        # surrogateescape maps a byte that is not UTF-8 to a surrogate, which is never known.
        texts = [part.decode(errors="surrogateescape") for part in parts]
        points = _points("".join(texts))
        ids = self._ids[points]
        known = ids > 0
        spelled = points[~known].tobytes().decode("utf-32-le", "surrogatepass")
        spelling = spelled.encode(errors="surrogateescape")
        widths = np.ones(len(points), np.int64)
        widths[~known] = [len(c.encode(errors="surrogateescape")) for c in spelled]
        out = np.repeat(ids, widths)
        out[np.repeat(~known, widths)] = np.frombuffer(spelling, np.uint8)
        ends = np.concatenate(([0], np.cumsum(widths)))
        return Ragged(out, ends[np.cumsum([0, *map(len, texts)])])

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        """Bytes the ids stand for."""
        return b"".join(map(self._pieces.__getitem__, self.checked(ids)))

    def token_bytes(self, token: int) -> bytes:
        """Bytes one id adds to a text."""
        return self.decode_bytes([token])

    def state(self) -> dict[str, Any]:
        """The characters in order of their ids."""
        return {"characters": self.characters}

    @classmethod
    def from_state(cls, recipe: "Char", state: dict[str, Any]) -> Self:
        """The tokenizer `state()` was taken from."""
        return cls(recipe, state["characters"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Char(TokenizerRecipe):
    """One token a character."""

    vocab_size: int = 1024
    special_tokens: tuple[str, ...] = ()

    tokenizer_class: ClassVar = CharTokenizer

    def __post_init__(self) -> None:
        checked_special(self.special_tokens)
        least = 256 + len(self.special_tokens)
        if self.vocab_size < least:
            raise ValueError(
                f"vocab_size {self.vocab_size} cannot hold the 256 bytes and "
                f"{len(self.special_tokens)} special tokens: it must be at least {least}"
            )

    def train(self, texts: Iterable[str]) -> CharTokenizer:
        """A tokenizer of the most frequent characters of the texts."""
        counts = np.zeros(_CODE_POINTS, np.int64)
        for text in texts:
            counts += np.bincount(_points(encoded(text).decode()), minlength=_CODE_POINTS)
        seen = np.flatnonzero(counts)
        if not len(seen):
            raise ValueError("the corpus is empty: training needs at least one character")
        room = self.vocab_size - 256 - len(self.special_tokens)
        kept = seen[np.argsort(-counts[seen], kind="stable")][:room]
        return CharTokenizer(self, "".join(map(chr, kept.tolist())))


def _points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
