"""The loop that turns adjacent symbols into new ones until the vocabulary is full."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from impls.tokenizers.kernels import pair_merges

Score = Literal["likelihood", "frequency"]
TieRule = Literal["first_seen", "id_pair"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Spelled:
    """Distinct words as symbols of an alphabet, and how often each occurs."""

    words: Sequence[Sequence[str]]
    counts: Sequence[int]
    alphabet: Sequence[str]


def learn_merges(
    corpus: Spelled,
    room: int,
    join: Callable[[str, str], str],
    *,
    score: Score,
    tie_rule: TieRule,
    min_frequency: int,
) -> list[str]:
    """New symbols in the order they are made; fewer than there is room for if pairs run out.

    room: ids for the alphabet and the new symbols; join: the symbol two neighbours make. A symbol
    made in two ways has one id.

    Raises:
        ValueError: if there are no words or the alphabet alone does not fit.
    """
    if not corpus.words:
        raise ValueError("the corpus holds no words: train on texts that are not empty")
    symbols = list(corpus.alphabet)
    if len(symbols) > room:
        raise ValueError(
            f"the alphabet has {len(symbols)} symbols but the vocabulary has room for {room} "
            "beside its special tokens: raise vocab_size or normalize the texts"
        )
    ids = {symbol: n for n, symbol in enumerate(symbols)}
    ends = np.cumsum([len(word) for word in corpus.words])
    flat = np.fromiter((ids[s] for word in corpus.words for s in word), np.int32, int(ends[-1]))
    table = pair_merges.new_corpus(flat, ends, np.array(corpus.counts, np.int64), room)
    by_likelihood, first_seen = score == "likelihood", tie_rule == "first_seen"
    while len(symbols) < room:
        left, right, count = pair_merges.best_pair(table, min_frequency, by_likelihood, first_seen)
        if count == 0:
            break
        made = join(symbols[left], symbols[right])
        new = ids.setdefault(made, len(symbols))
        if new == len(symbols):
            symbols.append(made)
        pair_merges.merge(table, left, right, new)
    return symbols[len(corpus.alphabet) :]
