"""SuperBPE: byte-level BPE that learns subwords first and then merges across spaces.

    stage 1: byte-level BPE within the words of `pattern`, up to `transition` * vocab_size ids
    stage 2: go on merging within whole lines, where tokens may span several words
    encode: apply all merges, in order, to whole lines

Stage 2 keeps numbers in groups of three digits and never merges across a line break; the paper
bounds a token to four words instead. Its stage 2 has a pattern of its own (`superwords`), so
tiktoken and Hugging Face run the vocabulary, too.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from harness.card import Card
from impls.tokenizers._byte_level import (
    BYTE_IDS,
    SYMBOLS,
    ByteMergeTokenizer,
    check_recipe,
    first_merges,
)
from impls.tokenizers._corpus import WordCounts, count_words
from impls.tokenizers._merges import Segmenter, SpelledWords, TieRule, learn_merges, merged_pieces
from impls.tokenizers._patterns import BytePattern
from impls.tokenizers._utf8 import joined
from impls.tokenizers.interface import TokenizerRecipe

CARD = Card(
    cls="SuperBPE",
    title="SuperBPE",
    paper="arXiv:2503.13423",
    year=2025,
    summary="Byte-level BPE in two stages, the second of which merges across whitespace.",
    oracle="tokenizers/peers/tiktoken",
)


class SuperBPETokenizer(ByteMergeTokenizer):
    """Merges over bytes within lines."""

    pattern = "superwords"


@dataclass(frozen=True, kw_only=True, slots=True)
class SuperBPE(TokenizerRecipe):
    """Superwords; the paper's best transition is 180,000 of 200,000 ids."""

    vocab_size: int = 8192
    transition: float = 0.9
    pattern: BytePattern = "gpt2"
    min_frequency: int = 2
    tie_rule: TieRule = "id_pair"
    special_tokens: tuple[str, ...] = ()

    tokenizer_class: ClassVar = SuperBPETokenizer

    def __post_init__(self) -> None:
        check_recipe(self.vocab_size, self.min_frequency, self.special_tokens)
        if not 0 <= self.transition <= 1:
            raise ValueError(
                f"transition is a share of the vocabulary, from 0 to 1, got {self.transition}"
            )

    def train(self, texts: Iterable[str]) -> SuperBPETokenizer:
        """A tokenizer learned from the texts, which are held in memory for the second stage."""
        texts = list(texts)
        room = self.vocab_size - 256 - len(self.special_tokens)
        first_room = min(room, max(0, round(self.transition * self.vocab_size) - 256))
        words = count_words(texts, self.pattern)
        subwords = first_merges(words, first_room, self.min_frequency, self.tie_rule)
        lines = count_words(texts, "superwords")
        superwords = self._second_merges(lines, subwords[:, :2], room - len(subwords))
        return SuperBPETokenizer(self, np.concatenate((subwords, superwords))[:, :2])

    def _second_merges(
        self, lines: WordCounts, subwords: NDArray[np.int64], n_merges: int
    ) -> NDArray[Any]:
        """(left, right, count) of the merges that follow the subwords."""
        segmenter = Segmenter("superwords", subwords, 256, BYTE_IDS, BYTE_IDS)
        ids, starts = segmenter.encode(joined(lines.texts()))
        return learn_merges(
            SpelledWords(ids.astype(np.int32), starts, lines.counts),
            merged_pieces(SYMBOLS, subwords),
            n_merges,
            self.min_frequency,
            self.tie_rule,
        )
