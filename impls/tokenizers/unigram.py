"""Unigram language model: a lexicon with probabilities, learned by pruning a large one.

    P(x) = prod_i p(x_i),  sum_V p = 1;    encode(X) = argmax over segmentations x of X of P(x)
    sample(X) ~ P(x)**alpha                (subword regularisation)

Whitespace is part of words, no piece crosses into the next word. A word starts at each whitespace
character (pattern `each_space`, as in the sentencepiece library), or at the first of a run and, if
text follows, at the last (`space_runs`, which keeps indentation short).
Scores are multiples of 2**-12: float64 sums are exact, so equal paths stay equal wherever a sum
begins (the one with the longest last piece wins), and short decimals survive every JSON reader.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from harness.card import Card
from impls.tokenizers._escaped import SPACE as ESCAPED_SPACE
from impls.tokenizers._hf_document import hf_document
from impls.tokenizers._lattice import Segmenter
from impls.tokenizers._normalize import Normalizer, normalize, require_normalizer
from impls.tokenizers._unigram_em import learn_lexicon
from impls.tokenizers._word_tokenizer import WordTokenizer, count_words, joined, whitespace_words
from impls.tokenizers.interface import Ids, Ragged, TokenizerRecipe
from impls.tokenizers.kernels import unigram

CARD = Card(
    cls="Unigram",
    title="Unigram LM",
    paper="arXiv:1804.10959",
    year=2018,
    summary="A lexicon with probabilities; the best, n best or a random segmentation.",
    oracle="tokenizers/peers/hf_unigram",
)

UNK = "<unk>"
SCORE_UNIT = 2.0**-12
_METASPACE = {
    "type": "Metaspace",
    "replacement": ESCAPED_SPACE,
    "prepend_scheme": "never",
    "split": False,
}
_NEVER = -(2.0**20)
RULES = {"each_space": unigram.EACH_SPACE, "space_runs": unigram.SPACE_RUNS}
_SPACE, _OTHER = f"[{ESCAPED_SPACE}\\n\\t\\r]", f"[^{ESCAPED_SPACE}\\n\\t\\r]"
_HF_PATTERNS = {
    "each_space": f"{_SPACE}{_OTHER}*|{_OTHER}+",
    "space_runs": f"{_SPACE}+(?!{_OTHER})|{_SPACE}?{_OTHER}+",
}


class UnigramTokenizer(WordTokenizer):
    """Pieces with log probabilities; id order: unknown, special tokens, bytes, pieces."""

    def __init__(self, recipe: "Unigram", pieces: Sequence[str], scores: Sequence[float]) -> None:
        self.recipe = recipe
        self.pieces = tuple(pieces)
        self.lossless = recipe.normalizer == "none" and recipe.byte_fallback
        self.unk_id = 0
        self.special_tokens = {token: n + 1 for n, token in enumerate(recipe.special_tokens)}
        named = [UNK, *recipe.special_tokens]
        self.first_byte = len(named)
        self.first_piece = len(named) + 256 * recipe.byte_fallback
        spelled = [piece.encode() for piece in self.pieces]
        all_bytes = [bytes((b,)) for b in range(256)] if recipe.byte_fallback else []
        self._bytes = [b"\xef\xbf\xbd", *(t.encode() for t in named[1:]), *all_bytes, *spelled]
        self.scores = np.concatenate((np.zeros(self.first_piece), scores))
        self.segmenter = Segmenter(
            [b""] * self.first_piece + spelled,
            self.scores,
            unk_id=self.unk_id,
            byte_ids=range(self.first_byte, self.first_piece),
        )

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return len(self._bytes)

    def encode_chunk(self, texts: Sequence[str]) -> Ragged:
        """Ids of a few texts."""
        return self.segmenter.encode(
            whitespace_words(self._normalized(texts), RULES[self.recipe.pattern])
        )

    def token_bytes(self, token: int) -> bytes:
        """UTF-8 of a piece, or one byte; U+FFFD for the unknown token."""
        return self._bytes[self.require_token(token)]

    def sample(self, text: str, rng: np.random.Generator) -> Ids:
        """A segmentation x of the text, drawn with probability proportional to P(x)**alpha."""
        return self.segmenter.sample(self._data(text), self.recipe.alpha, rng)

    def n_best(self, text: str, n: int) -> list[tuple[float, Ids]]:
        """The n most probable segmentations with log P, best first."""
        return self.segmenter.n_best(self._data(text), n)

    def log_probability(self, ids: Sequence[int] | Ids) -> float:
        """Log P of the ids in nats; an unknown character costs the lowest score less 10."""
        return self.segmenter.log_probability(ids)

    def _normalized(self, texts: Sequence[str]) -> list[str]:
        return [normalize(self.recipe.normalizer, text) for text in texts]

    def _data(self, text: str) -> NDArray[np.uint8]:
        return joined(self._normalized((text,)))[0]

    def state(self) -> dict[str, Any]:
        """Pieces and scores in the order of ids."""
        return {"pieces": list(self.pieces), "scores": self.scores[self.first_piece :].tolist()}

    @classmethod
    def from_state(cls, recipe: "Unigram", state: dict[str, Any]) -> Self:
        """The tokenizer `state()` was taken from."""
        return cls(recipe, state["pieces"], state["scores"])

    def to_hf_json(self) -> str:
        """This tokenizer as a Hugging Face `tokenizer.json`.

        There a space is written U+2581, so texts that hold that character differ.
        """
        bytes_ = [f"<0x{b:02X}>" for b in range(256 * self.recipe.byte_fallback)]
        names = [UNK, *self.special_tokens, *bytes_]
        pieces = [piece.replace(" ", ESCAPED_SPACE) for piece in self.pieces]
        # The library takes names for pieces; at this score their letters are always better.
        scores = [_NEVER] * self.first_piece + self.scores[self.first_piece :].tolist()
        pattern = {"Regex": _HF_PATTERNS[self.recipe.pattern]}
        split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
        return hf_document(
            self.recipe.normalizer,
            self.special_tokens,
            pre_tokenizer={"type": "Sequence", "pretokenizers": [_METASPACE, split]},
            decoder=_METASPACE,
            model={
                "type": "Unigram",
                "unk_id": self.unk_id,
                "byte_fallback": self.recipe.byte_fallback,
                "vocab": list(zip(names + pieces, scores, strict=True)),
            },
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Unigram(TokenizerRecipe):
    """Kudo's unigram language model over raw text."""

    tokenizer_class: ClassVar[type[UnigramTokenizer]] = UnigramTokenizer

    vocab_size: int = 8_000
    normalizer: Normalizer = "none"
    pattern: Literal["each_space", "space_runs"] = "space_runs"
    special_tokens: tuple[str, ...] = ()
    byte_fallback: bool = True  # unknown characters as their UTF-8 bytes
    character_coverage: float = 0.9995  # the sentencepiece library's default, as the next three
    max_piece_length: int = 16
    seed_size: int = 1_000_000
    shrink: float = 0.75  # share of the pieces a pruning keeps
    alpha: float = 0.1  # smoothing of `sample`; 0 draws every segmentation alike

    def __post_init__(self) -> None:
        require_normalizer(self.normalizer)
        if UNK in self.special_tokens or len({*self.special_tokens}) < len(self.special_tokens):
            raise ValueError(
                f"special_tokens must be distinct and without {UNK!r}, which is always there, "
                f"got {self.special_tokens}"
            )
        for name in ("vocab_size", "max_piece_length", "seed_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.character_coverage <= 1:
            raise ValueError(f"character_coverage must be in (0, 1], got {self.character_coverage}")
        if not 0 < self.shrink < 1:
            raise ValueError(f"shrink must be in (0, 1), got {self.shrink}")
        if self.alpha < 0:
            raise ValueError(f"alpha must not be negative, got {self.alpha}")

    def train(self, texts: Iterable[str]) -> UnigramTokenizer:
        """A tokenizer learned from the texts.

        Raises:
            ValueError: if the corpus is empty or the vocabulary cannot hold the alphabet.
        """
        normalized = (normalize(self.normalizer, text) for text in texts)
        counts = count_words(normalized, partial(whitespace_words, rule=RULES[self.pattern]))
        escape = ESCAPED_SPACE.encode()  # what other formats write for a space: in no piece
        lexicon = learn_lexicon(
            {word: n for word, n in counts.items() if escape not in word},
            size=self.vocab_size - 1 - len(self.special_tokens) - 256 * self.byte_fallback,
            coverage=self.character_coverage,
            max_length=self.max_piece_length,
            seed_size=self.seed_size,
            shrink=self.shrink,
        )
        scores = np.round(np.log(lexicon.p) / SCORE_UNIT) * SCORE_UNIT
        return UnigramTokenizer(self, lexicon.pieces, scores.tolist())
