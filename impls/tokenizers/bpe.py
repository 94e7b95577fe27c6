"""BPE: frequent pairs of neighbouring symbols become one symbol, from characters upwards.

    each word -> its characters, the last one marked </w>
    repeat: (a, b) <- the most frequent pair of neighbours;  replace every a b by ab
    encode: apply the merges to each word in the order they were learned

Words are runs without whitespace, so runs of spaces and line breaks are lost; a character that was
not in the corpus is the unknown token. Each known character has an id within and one at the end
of a word. `tie_rule` says which of equally frequent pairs is merged (see `_merges.TieRule`).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from harness.card import Card
from impls.tokenizers._byte_level import checked_merges, hf_special
from impls.tokenizers._corpus import WordCounts, count_words
from impls.tokenizers._merges import MergeTokenizer, Segmenter, SpelledWords, learn_merges
from impls.tokenizers.interface import Ids, TokenizerRecipe, checked_special
from impls.tokenizers.kernels.bpe_segment import symbols_of_words

CARD = Card(
    cls="BPE",
    title="BPE",
    paper="arXiv:1508.07909",
    year=2016,
    summary="Byte-pair encoding over characters with an end-of-word marker.",
    oracle="tokenizers/peers/subword_nmt",
)

MARKER: Final = "</w>"
_CODE_POINTS: Final = 0x110000


class BPETokenizer(MergeTokenizer):
    """Merges over the characters of words without whitespace."""

    lossless = False

    def __init__(self, recipe: "BPE", characters: str, merges: NDArray[np.int64]) -> None:
        self.characters = characters
        unknown = 2 * len(characters) + len(merges)
        alphabet, finals = _alphabets(characters, unknown)
        segmenter = Segmenter("whitespace", merges, 2 * len(characters), alphabet, finals)
        pieces = [c.encode() for c in characters]
        pieces += [piece + b" " for piece in pieces]
        special = (recipe.unk_token, *recipe.special_tokens)
        super().__init__(recipe, pieces, merges, special, segmenter)
        self.unk_id = unknown

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        """The words, joined by one space."""
        return super().decode_bytes(ids).removesuffix(b" ")

    def tokens(self) -> list[str]:
        """Text of each learned id, with the end-of-word marker."""
        learned = self.pieces[: self.unk_id]
        return [piece.decode().replace(" ", MARKER) for piece in learned]

    def state(self) -> dict[str, Any]:
        """The characters and the merges."""
        return {"characters": self.characters, "merges": self.merges.tolist()}

    @classmethod
    def from_state(cls, recipe: "BPE", state: dict[str, Any]) -> Self:
        """The tokenizer `state()` was taken from."""
        characters = state["characters"]
        return cls(recipe, characters, checked_merges(state["merges"], 2 * len(characters)))

    def to_hf_json(self) -> str:
        """A `tokenizer.json` with an end-of-word suffix."""
        tokens = [*self.tokens(), *self.special_tokens]
        return json.dumps(
            {
                "version": "1.0",
                "added_tokens": [hf_special(*item) for item in self.special_tokens.items()],
                "pre_tokenizer": {"type": "WhitespaceSplit"},
                "decoder": {"type": "BPEDecoder", "suffix": MARKER},
                "model": {
                    "type": "BPE",
                    "unk_token": self.recipe.unk_token,
                    "end_of_word_suffix": MARKER,
                    "vocab": {token: id_ for id_, token in enumerate(tokens)},
                    "merges": [[tokens[a], tokens[b]] for a, b in self.merges.tolist()],
                },
            }
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class BPE(TokenizerRecipe):
    """The tokenizer of the paper; its reference code takes the greatest of equal pairs."""

    vocab_size: int = 8192
    min_frequency: int = 2
    tie_rule: Literal["id_pair", "greatest_text"] = "greatest_text"
    unk_token: str = "<unk>"  # noqa: S105  (a token of text)
    special_tokens: tuple[str, ...] = ()

    tokenizer_class: ClassVar = BPETokenizer

    def __post_init__(self) -> None:
        checked_special((self.unk_token, *self.special_tokens))
        if self.min_frequency < 1:
            raise ValueError(f"min_frequency must be at least 1, got {self.min_frequency}")

    def train(self, texts: Iterable[str]) -> BPETokenizer:
        """A tokenizer learned from the texts."""
        words = count_words(texts, "whitespace")
        characters = "".join(sorted(set(words.arena.tobytes().decode())))
        n_special = 1 + len(self.special_tokens)
        n_merges = self.vocab_size - 2 * len(characters) - n_special
        if n_merges < 0:
            raise ValueError(
                f"vocab_size {self.vocab_size} cannot hold the alphabet: {len(characters)} "
                f"characters within and at the end of words and {n_special} special tokens need "
                f"{self.vocab_size - n_merges}"
            )
        texts_of = [c.encode() for c in characters]
        texts_of += [text + MARKER.encode() for text in texts_of]
        spelled = _spelled(words, characters)
        merges = learn_merges(spelled, texts_of, n_merges, self.min_frequency, self.tie_rule)
        return BPETokenizer(self, characters, merges[:, :2])


def _alphabets(characters: str, unknown: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Id of each code point within and at the end of a word, (0x110000,) each."""
    points = [ord(c) for c in characters]
    alphabet = np.full(_CODE_POINTS, unknown, np.uint32)
    finals = alphabet.copy()
    alphabet[points] = np.arange(len(points))
    finals[points] = np.arange(len(points), 2 * len(points))
    return alphabet, finals


def _spelled(words: WordCounts, characters: str) -> SpelledWords:
    """The words as ids of their characters."""
    alphabet, finals = _alphabets(characters, 0)
    out = np.empty(len(words.arena), np.uint32)
    starts = np.zeros(len(words.starts), np.int64)
    symbols_of_words(words.arena, words.starts, alphabet, finals, out, starts)
    return SpelledWords(out[: starts[-1]].astype(np.int32), starts, words.counts)
