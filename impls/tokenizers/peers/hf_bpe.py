"""Hugging Face tokenizers: byte-level and character BPE, encoding and training."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from tokenizers import Tokenizer as Library
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from harness.card import Card
from impls.tokenizers._byte_level import ByteMergeTokenizer
from impls.tokenizers.interface import NoExport, Tokenizer, TokenizerPeer, TokenizerRecipe
from impls.tokenizers.peers._adopted import one_thread
from impls.tokenizers.peers._hf import adopted_by_hf

CARD = Card(
    cls="HFBPEPeer",
    title="Hugging Face tokenizers (BPE)",
    paper="https://github.com/huggingface/tokenizers",
    year=2019,
    summary="The BPE model of Hugging Face tokenizers.",
    packages=("tokenizers",),
    peer_of=(
        "tokenizers/byte_bpe",
        "tokenizers/bpe",
        "tokenizers/bpe_dropout",
        "tokenizers/superbpe",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HFBPEPeer(TokenizerPeer):
    """The library on our vocabulary, or on one of its own."""

    threads: Literal[1] = 1  # set for the process, see `_adopted.one_thread`

    trains: ClassVar[bool] = True

    def adopt(self, tokenizer: Tokenizer) -> Tokenizer:
        """The library's tokenizer with exactly this vocabulary."""
        return adopted_by_hf(tokenizer)

    def train(self, texts: Iterable[str], recipe: TokenizerRecipe) -> Tokenizer:
        """The library's own training of byte-level BPE; its ties follow `id_pair`.

        Raises:
            NoExport: if the recipe is not byte-level BPE in one stage.
        """
        if recipe.tokenizer_class is not ByteMergeTokenizer:
            raise NoExport(f"only byte-level BPE is trained here, not {type(recipe).__name__}")
        untrained = ByteMergeTokenizer(recipe, np.zeros((0, 2), np.int64))
        one_thread()
        library = Library.from_str(untrained.to_hf_json())
        trainer = BpeTrainer(
            vocab_size=recipe.vocab_size - len(recipe.special_tokens),
            min_frequency=recipe.min_frequency,
            initial_alphabet=ByteLevel.alphabet(),
            show_progress=False,
        )
        library.train_from_iterator(texts, trainer)
        model = json.loads(library.to_str())["model"]
        ids = model["vocab"]
        merges = [[ids[left], ids[right]] for left, right in model["merges"]]
        trained = ByteMergeTokenizer(recipe, np.array(merges, np.int64).reshape(-1, 2))
        return adopted_by_hf(trained)
