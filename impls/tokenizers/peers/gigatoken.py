"""gigatoken running our merges: byte-level BPE in Rust with a hand-written SIMD scanner."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import awkward
import gigatoken
import numpy as np

from harness.card import Card
from impls.tokenizers.interface import Ragged, Tokenizer, TokenizerPeer
from impls.tokenizers.peers._adopted import Adopted

CARD = Card(
    cls="GigatokenPeer",
    title="gigatoken",
    paper="the package gigatoken",
    year=2026,
    summary="A byte-level BPE built for throughput.",
    packages=("gigatoken", "awkward"),
    peer_of=("tokenizers/byte_bpe", "tokenizers/bpe_dropout"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class GigatokenPeer(TokenizerPeer):
    """One thread, by `parallel=False`."""

    threads: Literal[1] = 1

    def adopt(self, tokenizer: Tokenizer) -> Tokenizer:
        """The library's tokenizer with exactly this vocabulary."""
        library = gigatoken.Tokenizer.from_json(tokenizer.to_hf_json())

        def encode_batch(texts: Sequence[str]) -> Ragged:
            rows = library.encode_batch(list(texts), parallel=False)
            counts = awkward.to_numpy(awkward.num(rows))
            ids = awkward.to_numpy(awkward.flatten(rows)).astype(np.uint32, copy=False)
            return Ragged(ids, np.concatenate(([0], np.cumsum(counts, dtype=np.int64))))

        return Adopted(tokenizer, library, encode_batch, library.decode)
