"""Trained tokenizers as artifacts, and a peer beside the technique whose vocabulary it adopts."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter

from harness import catalogue
from harness.instruments import Instruments
from impls.tokenizers.interface import (
    Ids,
    NoExport,
    Ragged,
    Tokenizer,
    TokenizerPeer,
    TokenizerRecipe,
    load,
)
from suites.data.corpus import Corpus


class Side(NamedTuple):
    """One side of a comparison."""

    fresh: Callable[[], Tokenizer]  # makes it anew, nothing cached
    train: Callable[[Sequence[str]], object] | None  # None: the library has no trainer
    loads: bool = True  # False: `fresh` must train, for the library cannot hold a vocabulary


def trained(recipe: TokenizerRecipe, corpus: Corpus, instruments: Instruments) -> Path:
    """The file of the tokenizer this recipe learns from the training texts, made once."""
    name = catalogue.name_of(recipe)
    options: Any = TypeAdapter(type(recipe)).dump_python(recipe, mode="json")
    return instruments.artifact(
        "tokenizer",
        {"technique": name, "recipe": options, "corpus": corpus.train_sha256},
        lambda path: recipe.train(corpus.train_texts).save(path),
        of=name,
    )


def sides(
    technique: TokenizerRecipe | TokenizerPeer,
    corpus: Corpus,
    instruments: Instruments,
    *,
    vocab_size: int,
) -> list[Side]:
    """The technique alone; for a peer, the peer and then the technique it repeats.

    A peer repeats the first technique its card names, with that technique's defaults but for
    `vocab_size`, where it has such a field. A library that cannot hold our vocabulary runs the one
    it trains from the same texts.
    """
    if not isinstance(technique, TokenizerPeer):
        return [Side(partial(load, trained(technique, corpus, instruments)), technique.train)]
    ours = catalogue.load(catalogue.card(instruments.technique).peer_of[0])
    sized = any(field.name == "vocab_size" for field in fields(ours))
    recipe: TokenizerRecipe = ours(vocab_size=vocab_size) if sized else ours()
    path = trained(recipe, corpus, instruments)
    return [_peer(technique, recipe, path, corpus), Side(partial(load, path), recipe.train)]


def _peer(technique: TokenizerPeer, recipe: TokenizerRecipe, path: Path, corpus: Corpus) -> Side:
    train = partial(technique.train, recipe=recipe) if technique.trains else None
    ours = load(path)
    try:
        technique.adopt(ours)
    except NoExport:
        if train is None:
            raise
        return Side(partial(train, corpus.train_texts), train, loads=False)
    return Side(partial(technique.adopt, ours), train)


def same_ids(mine: Ragged, other: Ragged) -> float:
    """Share of texts to which both give the same ids."""
    pairs = zip(_by_text(mine), _by_text(other), strict=True)
    return float(np.mean([np.array_equal(a, b) for a, b in pairs]))


def _by_text(ragged: Ragged) -> list[Ids]:
    return np.split(ragged.ids, ragged.offsets[1:-1])
