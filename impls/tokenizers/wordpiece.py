"""WordPiece: merges by likelihood gain, spells words by greedy longest match.

    train:   merge the pair (a, b) with the highest  freq(ab) / (freq(a) freq(b)),  |V| times
    encode:  longest piece first; a piece inside a word carries `##`; [UNK] for a word not spelled

`score="frequency", tie_rule="id_pair"` ranks pairs by freq(ab) and then by ids, as Hugging Face's
WordPieceTrainer does; that trainer numbers its `##` letters in hash order, anew in each process, so
the two agree up to the order of tied pairs. Letters here are numbered in code-point order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Self

import numpy as np

from harness.card import Card
from impls.tokenizers._hf_document import hf_document
from impls.tokenizers._normalize import Normalizer, require_normalizer
from impls.tokenizers._pair_merges import Score, Spelled, TieRule, learn_merges
from impls.tokenizers._word_tokenizer import (
    WordTokenizer,
    bert_words,
    build_trie,
    count_words,
    ragged,
)
from impls.tokenizers.interface import Ragged, TokenizerRecipe
from impls.tokenizers.kernels import word_cache
from impls.tokenizers.kernels.wordpiece import encode

CARD = Card(
    cls="WordPiece",
    title="WordPiece",
    paper="arXiv:1609.08144",
    year=2016,
    summary="Merges by likelihood gain; words spelled by greedy longest match with ##.",
    oracle="tokenizers/peers/hf_wordpiece",
)

UNK = "[UNK]"


class WordPieceTokenizer(WordTokenizer):
    """Pieces of words; spaces are not kept, so decoding puts one between words."""

    lossless = False

    def __init__(self, recipe: "WordPiece", vocabulary: Sequence[str]) -> None:
        self.recipe = recipe
        self.vocabulary = tuple(vocabulary)
        n_special = len(recipe.special_tokens)
        self.special_tokens = dict(zip(recipe.special_tokens, range(n_special), strict=True))
        self.unk_id = self.special_tokens[UNK]
        self._bytes = [b" " + token.encode() for token in self.vocabulary]
        roots = [0] * len(self.vocabulary)
        for n, token in enumerate(self.vocabulary[n_special:], n_special):
            if token.startswith("##") and len(token) > 2:
                self._bytes[n] = token[2:].encode()
                roots[n] = 1
        pieces = [b""] * n_special + [piece.removeprefix(b" ") for piece in self._bytes[n_special:]]
        self._trie = build_trie(pieces, roots)
        self._cache = word_cache.new_cache()

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return len(self.vocabulary)

    def encode_chunk(self, texts: Sequence[str]) -> Ragged:
        """Ids of a few texts."""
        found = bert_words(texts, self.recipe.normalizer)
        out = np.empty(len(found.data), np.uint32)
        id_ends = np.empty(len(found.ends), np.int64)
        longest = self.recipe.max_input_chars_per_word
        encode(found.data, found.ends, *self._trie, self.unk_id, longest, self._cache, out, id_ends)
        return ragged(out, id_ends, found.text_words)

    def token_bytes(self, token: int) -> bytes:
        """A piece without its mark, or a space and the start of a word."""
        return self._bytes[self.require_token(token)]

    def decode_bytes(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """Words with one space between them."""
        return super().decode_bytes(ids).removeprefix(b" ")

    def state(self) -> dict[str, Any]:
        """The vocabulary in the order of ids."""
        return {"vocabulary": list(self.vocabulary)}

    @classmethod
    def from_state(cls, recipe: "WordPiece", state: dict[str, Any]) -> Self:
        """The tokenizer `state()` was taken from."""
        return cls(recipe, state["vocabulary"])

    def to_hf_json(self) -> str:
        """This tokenizer as a Hugging Face `tokenizer.json`."""
        return hf_document(
            self.recipe.normalizer,
            self.special_tokens,
            pre_tokenizer={"type": "BertPreTokenizer"},
            decoder={"type": "WordPiece", "prefix": "##", "cleanup": False},
            model={
                "type": "WordPiece",
                "unk_token": UNK,
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": self.recipe.max_input_chars_per_word,
                "vocab": {token: n for n, token in enumerate(self.vocabulary)},
            },
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class WordPiece(TokenizerRecipe):
    """WordPiece with BERT's pre-tokenization."""

    tokenizer_class: ClassVar[type[WordPieceTokenizer]] = WordPieceTokenizer

    vocab_size: int = 30_522
    score: Score = "likelihood"
    min_frequency: int = 10  # rarer pairs stay apart: likelihood alone would prefer them
    tie_rule: TieRule = "first_seen"  # in the corpus; or the smaller ids
    normalizer: Normalizer = "bert"
    pattern: Literal["bert"] = "bert"
    special_tokens: tuple[str, ...] = ("[PAD]", UNK, "[CLS]", "[SEP]", "[MASK]")
    max_input_chars_per_word: int = 100

    def __post_init__(self) -> None:
        require_normalizer(self.normalizer)
        if UNK not in self.special_tokens or len({*self.special_tokens}) < len(self.special_tokens):
            raise ValueError(
                f"special_tokens must be distinct and hold {UNK!r}, got {self.special_tokens}"
            )
        for name in ("vocab_size", "min_frequency", "max_input_chars_per_word"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def train(self, texts: Iterable[str]) -> WordPieceTokenizer:
        """A tokenizer learned from the texts.

        Raises:
            ValueError: if the corpus is empty or the vocabulary cannot hold the alphabet.
        """
        counts = count_words(texts, partial(bert_words, normalizer=self.normalizer))
        spelled = [[c if k == 0 else f"##{c}" for k, c in enumerate(w.decode())] for w in counts]
        letters = {c for word in spelled for c in word}
        if self.score == "frequency":  # the library keeps every letter as a word's start too
            letters |= {c[2:] for c in letters if len(c) > 1}
        alphabet = sorted(letters, key=lambda c: (len(c) > 1, c))
        learned = learn_merges(
            Spelled(words=spelled, counts=list(counts.values()), alphabet=alphabet),
            self.vocab_size - len(self.special_tokens),
            lambda left, right: left + right.removeprefix("##"),
            score=self.score,
            tie_rule=self.tie_rule,
            min_frequency=self.min_frequency,
        )
        return WordPieceTokenizer(self, (*self.special_tokens, *alphabet, *learned))
