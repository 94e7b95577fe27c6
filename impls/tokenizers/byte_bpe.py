"""Byte-level BPE: merges start from the 256 bytes, so every text has ids and none is unknown.

    V <- the 256 bytes
    repeat: (a, b) <- the most frequent pair of neighbours within the words;  V <- V + {ab};
            replace every a b by ab
    encode: apply the merges to each word in the order they were learned

A word is a match of the pre-tokenizer pattern. Byte b has the id GPT-2 gave it, merge m makes id
256 + m, special tokens follow. The vocabulary is smaller than asked where pairs run out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from harness.card import Card
from impls.tokenizers._byte_level import ByteMergeTokenizer, check_recipe, first_merges
from impls.tokenizers._corpus import count_words
from impls.tokenizers._merges import TieRule
from impls.tokenizers._patterns import BytePattern
from impls.tokenizers.interface import TokenizerRecipe

CARD = Card(
    cls="ByteBPE",
    title="Byte-level BPE",
    paper="arXiv:1909.03341",
    year=2019,
    summary="Byte-pair encoding over UTF-8 bytes with a published pre-tokenizer pattern.",
    oracle="tokenizers/peers/tiktoken",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ByteBPE(TokenizerRecipe):
    """GPT-2's tokenizer; `cl100k` and `o200k` are the patterns of GPT-4 and GPT-4o."""

    vocab_size: int = 8192
    pattern: BytePattern = "gpt2"
    min_frequency: int = 2
    tie_rule: TieRule = "id_pair"
    special_tokens: tuple[str, ...] = ()

    tokenizer_class: ClassVar = ByteMergeTokenizer

    def __post_init__(self) -> None:
        check_recipe(self.vocab_size, self.min_frequency, self.special_tokens)

    def train(self, texts: Iterable[str]) -> ByteMergeTokenizer:
        """A tokenizer learned from the texts."""
        words = count_words(texts, self.pattern)
        n_merges = self.vocab_size - 256 - len(self.special_tokens)
        merges = first_merges(words, n_merges, self.min_frequency, self.tie_rule)
        return ByteMergeTokenizer(self, merges[:, :2])
