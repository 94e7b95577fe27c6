"""fastokens running our merges: byte-level BPE in Rust that reads `tokenizer.json`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from fastokens._native import Tokenizer as Library

from harness.card import Card
from impls.tokenizers.interface import Ragged, Tokenizer, TokenizerPeer
from impls.tokenizers.peers._adopted import Adopted, one_thread

CARD = Card(
    cls="FastokensPeer",
    title="fastokens",
    paper="the package fastokens",
    year=2026,
    summary="A faster engine for Hugging Face tokenizer files.",
    packages=("fastokens",),
    peer_of=("tokenizers/byte_bpe", "tokenizers/bpe_dropout", "tokenizers/superbpe"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FastokensPeer(TokenizerPeer):
    """One thread: it has no argument for that and reads RAYON_NUM_THREADS at its first call."""

    threads: Literal[1] = 1  # set for the process, see `_adopted.one_thread`

    def adopt(self, tokenizer: Tokenizer) -> Tokenizer:
        """The library's tokenizer with exactly this vocabulary."""
        one_thread()
        library = Library.from_json_str(tokenizer.to_hf_json())

        def encode_batch(texts: Sequence[str]) -> Ragged:
            ids, offsets = library.encode_batch_flat(list(texts), split_special_tokens=True)
            return Ragged(
                np.frombuffer(ids, np.uint32), np.frombuffer(offsets, np.uint64).astype(np.int64)
            )

        return Adopted(
            tokenizer, library, encode_batch, lambda ids: library.decode(ids, False).encode()
        )
