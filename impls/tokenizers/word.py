r"""Words: the V most frequent words are tokens, every other word is one unknown token.

    words(x) = matches of \w+|[^\w\s]+ in x
    V <- the words of highest count, ties in order of their text
    id(w) = rank of w in V, or that of the unknown token

Lossy: whitespace and unknown words are gone; decoding joins words by one space. Special tokens, of
which the unknown token is the first, follow the words.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np

from harness.card import Card
from impls.tokenizers._byte_level import hf_special
from impls.tokenizers._corpus import WordTable, count_words
from impls.tokenizers._patterns import spans
from impls.tokenizers._utf8 import joined, utf8
from impls.tokenizers.interface import Ids, Ragged, Tokenizer, TokenizerRecipe, checked_special
from impls.tokenizers.kernels import words as kernel

CARD = Card(
    cls="Word",
    title="Words",
    paper="folklore",
    year=1990,
    summary="The most frequent words are tokens; the rest is unknown, so text is lost.",
    oracle="tokenizers/peers/hf_word",
)


class WordTokenizer(Tokenizer):
    """A closed list of words."""

    lossless = False

    def __init__(self, recipe: "Word", words: Sequence[bytes]) -> None:
        self.recipe = recipe
        self.words = list(words)
        special = (recipe.unk_token, *recipe.special_tokens)
        self.unk_id = len(words)
        self.special_tokens = {text: len(words) + n for n, text in enumerate(special)}
        self._pieces = [*words, *(text.encode() for text in special)]
        self._table = WordTable()
        data = joined(words)
        self._table.add(data, np.stack((data.offsets[:-1], data.offsets[1:]), axis=1))
        if self._table.n_words != len(words):
            raise ValueError("the words of the vocabulary are not distinct")

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return len(self._pieces)

    def encode_batch(self, texts: Sequence[str]) -> Ragged:
        """Ids of many texts, special tokens in them taken as data."""
        data, table = utf8(texts), self._table
        out = np.empty(data.size, np.uint32)
        offsets = np.zeros(len(data.offsets), np.int64)
        cursor = np.zeros(2, np.int64)
        for block in spans(data, self.recipe.pattern):
            kernel.look_up(
                data.bytes,
                block,
                table.slots,
                table.arena,
                table.starts,
                self.unk_id,
                cursor,
                out,
                offsets,
            )
        return Ragged(out[: cursor[0]].copy(), offsets)

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        """The words, joined by one space."""
        return b" ".join(map(self._pieces.__getitem__, self.checked(ids)))

    def token_bytes(self, token: int) -> bytes:
        """The word and the space after it."""
        return self.decode_bytes([token]) + b" "

    def state(self) -> dict[str, Any]:
        """The words in order of their ids."""
        return {"words": [word.decode() for word in self.words]}

    @classmethod
    def from_state(cls, recipe: "Word", state: dict[str, Any]) -> Self:
        """The tokenizer `state()` was taken from."""
        return cls(recipe, [word.encode() for word in state["words"]])

    def to_hf_json(self) -> str:
        """A `tokenizer.json` with a WordLevel model."""
        whitespace = {"words": "Whitespace", "whitespace": "WhitespaceSplit"}
        return json.dumps(
            {
                "version": "1.0",
                "added_tokens": [hf_special(*item) for item in self.special_tokens.items()],
                "pre_tokenizer": {"type": whitespace[self.recipe.pattern]},
                "model": {
                    "type": "WordLevel",
                    "vocab": {piece.decode(): id_ for id_, piece in enumerate(self._pieces)},
                    "unk_token": self.recipe.unk_token,
                },
            }
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Word(TokenizerRecipe):
    """The closed vocabulary of the time before subwords."""

    vocab_size: int = 8192
    pattern: Literal["words", "whitespace"] = "words"
    min_frequency: int = 1
    unk_token: str = "<unk>"  # noqa: S105  (a token of text)
    special_tokens: tuple[str, ...] = ()

    tokenizer_class: ClassVar = WordTokenizer

    def __post_init__(self) -> None:
        checked_special((self.unk_token, *self.special_tokens))
        least = 2 + len(self.special_tokens)
        if self.vocab_size < least:
            raise ValueError(
                f"vocab_size {self.vocab_size} has no room for a word beside {least - 1} special "
                f"tokens: it must be at least {least}"
            )

    def train(self, texts: Iterable[str]) -> WordTokenizer:
        """A tokenizer of the most frequent words of the texts."""
        counted = count_words(texts, self.pattern)
        room = self.vocab_size - 1 - len(self.special_tokens)
        ranked = sorted(zip((-counted.counts).tolist(), counted.texts(), strict=True))
        special = {text.encode() for text in (self.unk_token, *self.special_tokens)}
        words = [word for count, word in ranked if -count >= self.min_frequency]
        return WordTokenizer(self, [word for word in words if word not in special][:room])
