"""What a `.model` does to text and ids."""

import base64
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from impls.tokenizers import _model_proto as proto
from impls.tokenizers._bpe_segmenter import BPESegmenter
from impls.tokenizers._charsmap import read_charsmap
from impls.tokenizers._escaped import SPACE, escaped_words, normalized, words_start_at_spaces
from impls.tokenizers._lattice import Segmenter
from impls.tokenizers._model_proto import ModelProto, Piece, read_model, write_model
from impls.tokenizers._word_tokenizer import WordTokenizer
from impls.tokenizers.interface import Ids, NoExport, Ragged

_BYTES = [bytes((b,)) for b in range(256)]
UNK_SURFACE = " \u2047 "  # how the library spells the unknown token


class SentencePieceTokenizer(WordTokenizer):
    """The pipeline of one `.model`; whitespace is normalized and escaped, so it is lossy."""

    lossless = False

    def __init__(self, recipe: Any, model: ModelProto) -> None:
        self.recipe = recipe
        self.model = model
        self.charsmap = read_charsmap(model.charsmap)
        kinds = [piece.kind for piece in model.pieces]
        if proto.USER_DEFINED in kinds or proto.UNUSED in kinds:
            raise ValueError("models with user-defined or unused pieces are not supported")
        self.unk_id = kinds.index(proto.UNKNOWN)
        self.special_tokens = {
            piece.text: n for n, piece in enumerate(model.pieces) if piece.kind == proto.CONTROL
        }
        self._bytes = [_surface(piece) for piece in model.pieces]
        byte_ids = [n for n, kind in enumerate(kinds) if kind == proto.BYTE]
        if model.byte_fallback and sorted(self._bytes[n] for n in byte_ids) != _BYTES:
            raise ValueError("a damaged .model: byte fallback without all 256 byte pieces")
        tokens = [p.text.encode() if p.kind == proto.NORMAL else b"" for p in model.pieces]
        scores = np.array([piece.score for piece in model.pieces])
        fallback = sorted(byte_ids, key=self._bytes.__getitem__) if model.byte_fallback else ()
        self._by_word = words_start_at_spaces(tokens)
        self.segmenter: Segmenter | BPESegmenter
        if model.model_type == proto.UNIGRAM:
            self.segmenter = Segmenter(
                tokens, scores, unk_id=self.unk_id, byte_ids=fallback, single=True
            )
        elif model.model_type == proto.BPE:
            self.segmenter = BPESegmenter(tokens, scores, unk_id=self.unk_id, byte_ids=fallback)
        else:
            raise ValueError(f"a .model of type {model.model_type}: only unigram (1) and BPE (2)")

    @property
    def vocab_size(self) -> int:
        """Number of ids, control tokens and bytes included."""
        return len(self.model.pieces)

    def encode_chunk(self, texts: Sequence[str]) -> Ragged:
        """Ids of a few texts."""
        found = normalized(texts, self.model, self.charsmap)
        return self.segmenter.encode(escaped_words(*found, self._by_word))

    def token_bytes(self, token: int) -> bytes:
        """UTF-8 of a piece with plain spaces, or one byte; nothing for a control token."""
        return self._bytes[self.require_token(token)]

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        """The normalized text, without the space that encoding put in front."""
        parts = [(int(token), self.token_bytes(int(token))) for token in ids]
        if self.model.add_dummy_prefix or self.model.remove_extra_whitespaces:
            parts = self._without_first_space(parts)
        return b"".join(part for _, part in parts)

    def _without_first_space(self, parts: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """The parts from the first that shows on; no space, or one less, before the text."""
        for n, (token, part) in enumerate(parts):
            if token != self.unk_id and part.startswith(b" "):
                part = part[1:]
                if not self.model.remove_extra_whitespaces:
                    return [(token, part), *parts[n + 1 :]]
            if part:
                return [(token, part), *parts[n + 1 :]]
        return []

    def sample(self, text: str, rng: np.random.Generator) -> Ids:
        """A random segmentation, drawn with probability proportional to P(x)**alpha.

        Raises:
            NoExport: if the model is BPE.
        """
        return self._lattice().sample(self._data(text), self.recipe.alpha, rng)

    def n_best(self, text: str, n: int) -> list[tuple[float, Ids]]:
        """The n most probable segmentations with log P, best first."""
        return self._lattice().n_best(self._data(text), n)

    def log_probability(self, ids: Sequence[int] | Ids) -> float:
        """Log P of the ids in nats.

        Raises:
            NoExport: if the model is BPE.
        """
        return self._lattice().log_probability(ids)

    def _data(self, text: str) -> NDArray[np.uint8]:
        return normalized((text,), self.model, self.charsmap).data

    def _lattice(self) -> Segmenter:
        if not isinstance(self.segmenter, Segmenter):
            raise NoExport("a BPE model has no probabilities: train with model='unigram'")
        return self.segmenter

    def to_model(self) -> bytes:
        """The bytes of a `.model` file for the sentencepiece library.

        Raises:
            NoExport: if texts are normalized by nfkc, which the library would leave out.
        """
        if self.recipe.normalizer == "nfkc":
            raise NoExport("a .model has no nfkc without a precompiled map: train with 'none'")
        return write_model(self.model)

    def state(self) -> dict[str, Any]:
        """The `.model`, in base 64."""
        return {"model": base64.b64encode(write_model(self.model)).decode()}

    @classmethod
    def from_state(cls, recipe: Any, state: dict[str, Any]) -> Self:
        """The tokenizer `state()` was taken from."""
        return cls(recipe, read_model(base64.b64decode(state["model"])))


def _surface(piece: Piece) -> bytes:
    """Bytes a piece adds to a text."""
    if piece.kind == proto.CONTROL:
        return b""
    if piece.kind == proto.UNKNOWN:
        return UNK_SURFACE.encode()
    if piece.kind == proto.BYTE:
        try:
            return bytes((int(piece.text.removeprefix("<0x").removesuffix(">"), 16),))
        except ValueError as error:
            raise ValueError(f"a damaged .model: byte piece {piece.text!r}") from error
    return piece.text.replace(SPACE, " ").encode()
