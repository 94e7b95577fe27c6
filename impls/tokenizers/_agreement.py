"""A technique beside a library that runs its vocabulary, on difficult texts."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from impls.tokenizers import _probes

if TYPE_CHECKING:
    from impls.tokenizers.interface import TokenizerPeer, TokenizerRecipe


def agreement(
    technique: "TokenizerRecipe", peer: "TokenizerPeer", *, seed: int, size: int
) -> dict[str, float]:
    """How many difficult texts the peer, given our vocabulary, encodes and decodes as we do.

    Args:
        technique: What trains the vocabulary, of at most 2048 ids so that it takes a moment.
        peer: The library that adopts it.
        seed: Chooses the random texts.
        size: Characters of all texts together, roughly.

    Returns:
        "compared" texts, "agreeing" of them, and "max_error", which is 0 since ids are exact.
    """
    small = technique
    if hasattr(technique, "vocab_size"):
        small = replace(technique, vocab_size=min(technique.vocab_size, 2048))  # type: ignore[type-var]
    ours = small.train(_probes.corpus(seed))
    theirs = peer.adopt(ours)
    texts = _probes.texts(seed, size)
    agreeing = 0
    for text in texts:
        ids = ours.encode(text)
        same_ids = np.array_equal(ids, theirs.encode(text))
        agreeing += same_ids and ours.decode(ids) == theirs.decode(ids)
    return {"compared": float(len(texts)), "agreeing": float(agreeing), "max_error": 0.0}
