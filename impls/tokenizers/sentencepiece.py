"""SentencePiece: raw text in, whitespace a symbol, one self-contained `.model` file.

    encode = model . escape . whitespace . normalizer       model: unigram or BPE over U+2581 words

Normalizers: none; nfkc by this Python's Unicode tables; or, in a `.model` the library wrote, its
precompiled character map, applied exactly. A loaded model gives the library's ids, its float32
rounding included; a `.model` written here is read by the library, save one trained under nfkc.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import numpy as np

from harness.card import Card
from impls.tokenizers import _model_proto as proto
from impls.tokenizers._alphabet import cover
from impls.tokenizers._charsmap import read_charsmap
from impls.tokenizers._escaped import SPACE, escaped_words, normalized
from impls.tokenizers._model_proto import ModelProto, Piece, read_model
from impls.tokenizers._pair_merges import Spelled, learn_merges
from impls.tokenizers._sentencepiece_tokenizer import SentencePieceTokenizer
from impls.tokenizers._unigram_em import learn_lexicon
from impls.tokenizers._word_tokenizer import Words, count_words
from impls.tokenizers.interface import TokenizerRecipe

CARD = Card(
    cls="SentencePiece",
    title="SentencePiece",
    paper="arXiv:1808.06226",
    year=2018,
    summary="Raw text in, whitespace as a symbol, byte fallback, unigram or BPE, one .model file.",
    oracle="tokenizers/peers/sentencepiece",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SentencePiece(TokenizerRecipe):
    """The library's pipeline, trained here."""

    tokenizer_class: ClassVar[type[SentencePieceTokenizer]] = SentencePieceTokenizer

    vocab_size: int = 8_000
    model: Literal["unigram", "bpe"] = "unigram"
    normalizer: Literal["none", "nfkc", "precompiled"] = "none"  # precompiled: only in files
    byte_fallback: bool = True
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    character_coverage: float = 0.9995
    max_piece_length: int = 16
    alpha: float = 0.1  # smoothing of `sample`

    def __post_init__(self) -> None:
        for name in ("vocab_size", "max_piece_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.character_coverage <= 1:
            raise ValueError(f"character_coverage must be in (0, 1], got {self.character_coverage}")
        if self.alpha < 0:
            raise ValueError(f"alpha must not be negative, got {self.alpha}")

    def train(self, texts: Iterable[str]) -> SentencePieceTokenizer:
        """A tokenizer learned from the texts.

        Raises:
            ValueError: if the corpus is empty or the vocabulary cannot hold the alphabet.
        """
        if self.normalizer == "precompiled":
            raise ValueError(
                "normalizer 'precompiled' comes with a .model: train with none or nfkc"
            )
        pieces = [Piece("<unk>", 0.0, proto.UNKNOWN)]
        pieces += [Piece(name, 0.0, proto.CONTROL) for name in ("<s>", "</s>")]
        if self.byte_fallback:
            pieces += [Piece(f"<0x{b:02X}>", 0.0, proto.BYTE) for b in range(256)]
        model = ModelProto(
            pieces=(*pieces, Piece(SPACE, 0.0, proto.NORMAL)),
            model_type=proto.BPE if self.model == "bpe" else proto.UNIGRAM,
            byte_fallback=self.byte_fallback,
            normalizer="identity" if self.normalizer == "none" else self.normalizer,
            add_dummy_prefix=self.add_dummy_prefix,
            remove_extra_whitespaces=self.remove_extra_whitespaces,
        )

        counts = count_words(texts, partial(_words, model=model))
        learn = self._learn_bpe if self.model == "bpe" else self._learn_unigram
        taken = {piece.text for piece in pieces}
        learned = [p for p in learn(counts, self.vocab_size - len(pieces)) if p.text not in taken]
        return SentencePieceTokenizer(self, replace(model, pieces=(*pieces, *learned)))

    def _learn_unigram(self, counts: dict[bytes, int], room: int) -> list[Piece]:
        lexicon = learn_lexicon(
            counts,
            size=room,
            coverage=self.character_coverage,
            max_length=self.max_piece_length,
            seed_size=1_000_000,
            shrink=0.75,
        )
        scores = np.log(lexicon.p).astype(np.float32).tolist()
        return [Piece(*entry, proto.NORMAL) for entry in zip(lexicon.pieces, scores, strict=True)]

    def _learn_bpe(self, counts: dict[bytes, int], room: int) -> list[Piece]:
        words = {word.decode(): n for word, n in counts.items()}
        alphabet = sorted(cover(words, self.character_coverage))
        rare = {char for word in words for char in word}.difference(alphabet)
        words = {word: n for word, n in words.items() if rare.isdisjoint(word)}
        learned = learn_merges(
            Spelled(words=list(words), counts=list(words.values()), alphabet=alphabet),
            room,
            str.__add__,
            score="frequency",
            tie_rule="id_pair",
            min_frequency=1,
        )
        ranked = [piece for piece in learned if len(piece) <= self.max_piece_length]
        return [Piece(p, -float(n), proto.NORMAL) for n, p in enumerate((*ranked, *alphabet))]


def load_model(data: bytes) -> SentencePieceTokenizer:
    """The tokenizer of a `.model` file.

    Raises:
        ValueError: if the data is damaged, truncated, or uses what is not supported.
    """
    model = read_model(data)
    recipe = SentencePiece(
        vocab_size=len(model.pieces),
        model="bpe" if model.model_type == proto.BPE else "unigram",
        normalizer="precompiled" if model.charsmap else "none",
        byte_fallback=model.byte_fallback,
        add_dummy_prefix=model.add_dummy_prefix,
        remove_extra_whitespaces=model.remove_extra_whitespaces,
    )
    return SentencePieceTokenizer(recipe, model)


def _words(texts: Sequence[str], model: ModelProto) -> Words:
    return escaped_words(*normalized(texts, model, read_charsmap(b"")), by_word=True)
