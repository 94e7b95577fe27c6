"""Characters of the training text, everything else unknown: ids one can count by hand."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from harness.card import Card
from impls.tokenizers.interface import Ids, Ragged, Tokenizer, TokenizerRecipe

CARD = Card(
    cls="FakeChars",
    title="Fake characters",
    paper="none",
    year=2026,
    summary="A character is a token.",
    oracle="tokenizers/peers/fake_peer",
)


class CharsTokenizer(Tokenizer):
    lossless = False
    special_tokens: ClassVar[dict[str, int]] = {}

    def __init__(self, recipe: "FakeChars", alphabet: str) -> None:
        self.recipe = recipe
        self.alphabet = alphabet
        self.unk_id = 0

    @property
    def vocab_size(self) -> int:
        return 1 + len(self.alphabet)

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> Ids:
        return np.array([1 + self.alphabet.find(c) for c in text], dtype=np.uint32)

    def encode_batch(self, texts: Sequence[str]) -> Ragged:
        offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        return Ragged(self.encode("".join(texts)), offsets)

    def encode_bytes(self, data: bytes) -> Ids:
        return self.encode(data.decode())

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        return "".join(("?" + self.alphabet)[i] for i in ids).encode()

    def token_bytes(self, token: int) -> bytes:
        return self.decode_bytes([token])

    def state(self) -> dict[str, Any]:
        return {"alphabet": self.alphabet}

    @classmethod
    def from_state(cls, recipe: Any, state: dict[str, Any]) -> "CharsTokenizer":
        return cls(recipe, state["alphabet"])


@dataclass(frozen=True, kw_only=True, slots=True)
class FakeChars(TokenizerRecipe):
    vocab_size: int = 1000
    trainings: ClassVar[list[int]] = []  # of which vocab_size, across a test
    tokenizer_class: ClassVar[type[Tokenizer]] = CharsTokenizer
    extra: str = field(default="")

    def train(self, texts: Iterable[str]) -> CharsTokenizer:
        self.trainings.append(self.vocab_size)
        alphabet = sorted(set(self.extra).union(*texts))
        return CharsTokenizer(self, "".join(alphabet[: self.vocab_size - 1]))
