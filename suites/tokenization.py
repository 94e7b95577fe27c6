"""How well does a tokenizer spell text it has not seen, and what does it cost other languages?

All is measured on held-out documents; bytes are UTF-8, words are what whitespace parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from harness.card import Card, Metric, Suite
from harness.instruments import Instruments
from impls.tokenizers.interface import Tokenizer, TokenizerRecipe, load
from suites.data import corpus
from suites.data.vocabulary import trained

SUITE = Suite(
    title="Tokenization",
    question="How many tokens does unseen text cost, how evenly are they used, and what is lost?",
    families=("tokenizers",),
    baseline="tokenizers/byte_bpe",
    metrics=(
        Metric(name="bytes_per_token", unit="B", better="higher", kind="quality"),
        Metric(name="tokens_per_word", unit="1", better="lower", kind="quality"),
        Metric(
            name="vocabulary_use",
            unit="1",
            better="higher",
            kind="quality",
            summary="Share of ids that occur in the held-out text.",
        ),
        Metric(
            name="renyi_efficiency",
            unit="1",
            better="higher",
            kind="quality",
            summary="Rényi entropy (order 2.5) of token frequencies over that of even use.",
        ),
        Metric(name="unknown_rate", unit="1", better="lower", kind="quality"),
        Metric(
            name="round_trip_rate",
            unit="1",
            better="higher",
            kind="quality",
            summary="Share of documents that decode to exactly themselves.",
        ),
        Metric(
            name="languages_spelled",
            unit="1",
            better="higher",
            kind="quality",
            summary="Share of 34 languages in which the same names need no unknown token.",
        ),
        Metric(
            name="language_cost",
            unit="1",
            better="lower",
            kind="quality",
            summary="Tokens of the same names relative to English, over languages spelled.",
        ),
        Metric(name="worst_language_cost", unit="1", better="lower", kind="quality"),
        Metric(name="vocab_size", unit="1", better="neither", kind="count"),
    ),
)

ALPHA = 2.5  # the order that goes best with translation quality, arXiv:2306.16842


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """Which text to learn from and to spell."""

    data: str = "english"  # english, code, multilingual, file:PATH, hf:NAME
    corpus_bytes: int = 1_000_000  # a tenth of it held out
    seed: int = 0  # draws other documents of the corpus

    def __post_init__(self) -> None:
        corpus.check(self.data)
        if self.corpus_bytes < 10_000:
            raise ValueError(f"corpus_bytes must be at least 10000, got {self.corpus_bytes}")


def applies(card: Card) -> str:
    """Why a technique is not measured: a peer spells exactly as the technique it runs."""
    return "a peer adopts a technique's vocabulary: see parity" if card.peer_of else ""


def measure(
    technique: TokenizerRecipe, setting: Setting, instruments: Instruments
) -> dict[str, float | list[float] | None]:
    """Train on one split, spell the other, then the same names in every language."""
    texts = corpus.load(setting.data, instruments, n_bytes=setting.corpus_bytes, seed=setting.seed)
    tokenizer = load(trained(technique, texts, instruments))
    documents = texts.held_out_texts
    spelled = tokenizer.encode_batch(documents)
    counts = np.bincount(spelled.ids, minlength=tokenizer.vocab_size)  # (V,)
    tokens = np.maximum(np.diff(spelled.offsets), 1)  # (N,); a normalizer may leave nothing
    words = np.array([len(text.split()) for text in documents])
    n_bytes = np.array([len(text.encode()) for text in documents])
    ids = np.split(spelled.ids, spelled.offsets[1:-1])
    intact = [tokenizer.decode(i) == text for i, text in zip(ids, documents, strict=True)]
    parallel = corpus.parallel(instruments)
    costs = language_costs(tokenizer, parallel)
    worst = max(costs, key=costs.__getitem__, default=None)
    instruments.note(corpus=texts.facts(), language_costs=costs, worst_language=worst)
    return {
        "bytes_per_token": (n_bytes / tokens).tolist(),
        "tokens_per_word": (tokens / words).tolist(),
        "vocabulary_use": float(np.mean(counts > 0)),
        "renyi_efficiency": renyi_efficiency(counts),
        "unknown_rate": unknown_share(tokenizer, counts),
        "round_trip_rate": float(np.mean(intact)),
        "languages_spelled": len(costs) / (len(parallel) - 1),
        "language_cost": list(costs.values()) or None,
        "worst_language_cost": costs[worst] if worst else None,
        "vocab_size": tokenizer.vocab_size,
    }


def renyi_efficiency(counts: NDArray[np.int64], alpha: float = ALPHA) -> float:
    """Rényi entropy of the frequencies (V,) over its largest value log V; 1 for V = 1."""
    if len(counts) == 1:
        return 1.0
    p = counts / counts.sum()
    return log(float(np.sum(p**alpha))) / (1 - alpha) / log(len(counts))


def unknown_share(tokenizer: Tokenizer, counts: NDArray[np.int64]) -> float:
    """Share of tokens that stand for what the vocabulary cannot spell."""
    return 0.0 if tokenizer.unk_id is None else float(counts[tokenizer.unk_id] / counts.sum())


def language_costs(tokenizer: Tokenizer, parallel: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Tokens of each language over those of the first, which is left out.

    A language with an unknown token is left out, for what is not spelled costs nothing; if the
    first has one, so are all.
    """
    unknown = tokenizer.unk_id
    ids = {language: tokenizer.encode_batch(texts).ids for language, texts in parallel.items()}
    spelled = {k: len(v) for k, v in ids.items() if unknown is None or unknown not in v}
    first, *others = parallel
    return {k: spelled[k] / spelled[first] for k in others if k in spelled and first in spelled}
