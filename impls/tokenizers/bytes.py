"""Bytes: no vocabulary to learn; every byte of UTF-8 is a token.

    id = byte + 3

Ids 0, 1 and 2 are padding, end of text and unknown, as in ByT5; further special tokens follow the
bytes. Nothing is ever unknown. ByT5's sentinel ids for its training objective are left out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from harness.card import Card
from impls.tokenizers._utf8 import joined, utf8
from impls.tokenizers.interface import Ids, Ragged, Tokenizer, TokenizerRecipe, checked_special

CARD = Card(
    cls="Bytes",
    title="Bytes",
    paper="arXiv:2105.13626",
    year=2021,
    summary="Every UTF-8 byte is a token, with the ids of ByT5.",
    oracle="ids equal the UTF-8 bytes plus 3",
)

_FIRST = 3
_SPECIAL = ("<pad>", "</s>", "<unk>")


class BytesTokenizer(Tokenizer):
    """Ids are bytes plus three."""

    lossless = True
    unk_id = 2

    def __init__(self, recipe: "Bytes") -> None:
        self.recipe = recipe
        self.special_tokens = {text: n for n, text in enumerate(_SPECIAL)}
        self._pieces = [text.encode() for text in _SPECIAL] + [bytes([b]) for b in range(256)]
        for text in recipe.special_tokens:
            self.special_tokens[text] = len(self._pieces)
            self._pieces.append(text.encode())

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return len(self._pieces)

    def encode_batch(self, texts: Sequence[str]) -> Ragged:
        """Ids of many texts."""
        data = utf8(texts)
        return Ragged(data.bytes[: data.size].astype(np.uint32) + np.uint32(_FIRST), data.offsets)

    def encode_bytes(self, data: bytes) -> Ids:
        """Ids of any data."""
        return joined([data]).bytes[: len(data)].astype(np.uint32) + np.uint32(_FIRST)

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        """Bytes the ids stand for."""
        return b"".join(map(self._pieces.__getitem__, self.checked(ids)))

    def token_bytes(self, token: int) -> bytes:
        """Bytes one id adds to a text."""
        return self.decode_bytes([token])

    def state(self) -> dict[str, Any]:
        """Nothing: there is nothing to learn."""
        return {}

    @classmethod
    def from_state(cls, recipe: "Bytes", state: dict[str, Any]) -> Self:
        """The tokenizer of the recipe."""
        return cls(recipe)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bytes(TokenizerRecipe):
    """ByT5's input layer."""

    special_tokens: tuple[str, ...] = ()

    tokenizer_class: ClassVar = BytesTokenizer

    def __post_init__(self) -> None:
        checked_special((*_SPECIAL, *self.special_tokens))

    def train(self, texts: Iterable[str]) -> BytesTokenizer:
        """The tokenizer; the texts are not read."""
        return BytesTokenizer(self)
