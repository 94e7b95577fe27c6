"""The sentencepiece library itself."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import sentencepiece as library

from harness.card import Card
from impls.tokenizers import _model_proto as proto
from impls.tokenizers._escaped import SPACE
from impls.tokenizers._model_proto import ModelProto, Piece, write_model
from impls.tokenizers._sentencepiece_tokenizer import SentencePieceTokenizer
from impls.tokenizers.interface import NoExport, Ragged, Tokenizer, TokenizerPeer, TokenizerRecipe
from impls.tokenizers.peers._adopted import Adopted, ragged
from impls.tokenizers.sentencepiece import SentencePiece, load_model
from impls.tokenizers.unigram import UNK, UnigramTokenizer

CARD = Card(
    cls="SentencePieceLibrary",
    title="sentencepiece",
    paper="https://github.com/google/sentencepiece",
    year=2018,
    summary="The sentencepiece library, in C++.",
    packages=("sentencepiece",),
    peer_of=("tokenizers/sentencepiece", "tokenizers/unigram"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SentencePieceLibrary(TokenizerPeer):
    """The library on our vocabulary, or on one of its own."""

    threads: int = 1  # to train and to encode a batch

    trains: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")

    def adopt(self, tokenizer: Tokenizer) -> Adopted:
        """The library's tokenizer with exactly this vocabulary.

        Raises:
            NoExport: if a `.model` cannot say what the tokenizer does.
        """
        if isinstance(tokenizer, SentencePieceTokenizer):
            return self._adopted(tokenizer, tokenizer.to_model())
        if isinstance(tokenizer, UnigramTokenizer):
            return self._adopted(tokenizer, write_model(_unigram_model(tokenizer)))
        raise NoExport(f"{type(tokenizer).__name__} has no .model")

    def train(self, texts: Iterable[str], recipe: TokenizerRecipe) -> Adopted:
        """The library's own training, line by line, under a SentencePiece recipe."""
        if not isinstance(recipe, SentencePiece) or recipe.normalizer != "none":
            raise NoExport("the library trains a SentencePiece recipe with normalizer 'none'")
        written = io.BytesIO()
        library.SentencePieceTrainer.train(
            sentence_iterator=(line for text in texts for line in text.splitlines()),
            model_writer=written,
            vocab_size=recipe.vocab_size,
            model_type=recipe.model,
            byte_fallback=recipe.byte_fallback,
            add_dummy_prefix=recipe.add_dummy_prefix,
            remove_extra_whitespaces=recipe.remove_extra_whitespaces,
            character_coverage=recipe.character_coverage,
            max_sentencepiece_length=recipe.max_piece_length,
            normalization_rule_name="identity",
            hard_vocab_limit=False,
            num_threads=self.threads,
            minloglevel=2,
        )
        model = written.getvalue()
        return self._adopted(load_model(model), model)

    def _adopted(self, ours: Tokenizer, model: bytes) -> Adopted:
        processor = library.SentencePieceProcessor(model_proto=model)

        def encode_batch(texts: Sequence[str]) -> Ragged:
            return ragged(processor.encode(list(texts), num_threads=self.threads))

        return Adopted(ours, processor, encode_batch, ours.decode_bytes)


def _unigram_model(tokenizer: UnigramTokenizer) -> ModelProto:
    recipe = tokenizer.recipe
    if recipe.pattern != "each_space" or recipe.normalizer != "none" or not recipe.byte_fallback:
        raise NoExport(
            "a .model runs a Unigram only with pattern='each_space', normalizer='none' and "
            f"byte_fallback=True (it fuses unknowns across words), got {recipe}"
        )
    pieces = [Piece(UNK, 0.0, proto.UNKNOWN)]
    pieces += [Piece(name, 0.0, proto.CONTROL) for name in tokenizer.special_tokens]
    pieces += [Piece(f"<0x{b:02X}>", 0.0, proto.BYTE) for b in range(256 * recipe.byte_fallback)]
    for text, score in zip(tokenizer.pieces, tokenizer.scores[len(pieces) :], strict=True):
        pieces.append(Piece(text.replace(" ", SPACE), float(score), proto.NORMAL))
    return ModelProto(
        pieces=tuple(pieces),
        byte_fallback=recipe.byte_fallback,
        normalizer="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
    )
