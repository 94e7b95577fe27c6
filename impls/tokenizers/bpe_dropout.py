"""BPE-dropout: byte-level BPE whose merges fail at random while a model trains.

    repeat: of all merges possible now, drop each with probability p;
            apply the one of lowest rank that is left; stop where none is

p = 0 is BPE, p = 1 the bytes. `sample` draws a segmentation; `encode` is the deterministic one, as
at inference. Training, ids and exports are those of byte-level BPE; the paper drops merges of
characters.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from harness.card import Card
from impls.tokenizers._byte_level import ByteMergeTokenizer, check_recipe, first_merges
from impls.tokenizers._corpus import count_words
from impls.tokenizers._merges import TieRule
from impls.tokenizers._patterns import BytePattern
from impls.tokenizers.interface import Ids, TokenizerRecipe

CARD = Card(
    cls="BPEDropout",
    title="BPE-dropout",
    paper="arXiv:1910.13267",
    year=2020,
    summary="Byte-level BPE that samples segmentations by dropping merges.",
    oracle="p = 0 equals byte_bpe and p = 1 equals bytes",
)


class BPEDropoutTokenizer(ByteMergeTokenizer):
    """Merges over bytes that may fail."""

    def sample(self, text: str, rng: np.random.Generator) -> Ids:
        """One random segmentation of the text, special tokens in it taken as data."""
        return self.segmenter.sample(text, self.recipe.dropout, rng)


@dataclass(frozen=True, kw_only=True, slots=True)
class BPEDropout(TokenizerRecipe):
    """Stochastic segmentation; 0.1 is the paper's rate (0.6 for Chinese and Japanese)."""

    vocab_size: int = 8192
    dropout: float = 0.1
    pattern: BytePattern = "gpt2"
    min_frequency: int = 2
    tie_rule: TieRule = "id_pair"
    special_tokens: tuple[str, ...] = ()

    tokenizer_class: ClassVar = BPEDropoutTokenizer

    def __post_init__(self) -> None:
        check_recipe(self.vocab_size, self.min_frequency, self.special_tokens)
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout must be a probability, from 0 to 1, got {self.dropout}")

    def train(self, texts: Iterable[str]) -> BPEDropoutTokenizer:
        """A tokenizer learned from the texts; dropout plays no part in it."""
        words = count_words(texts, self.pattern)
        n_merges = self.vocab_size - 256 - len(self.special_tokens)
        merges = first_merges(words, n_merges, self.min_frequency, self.tie_rule)
        return BPEDropoutTokenizer(self, merges[:, :2])
