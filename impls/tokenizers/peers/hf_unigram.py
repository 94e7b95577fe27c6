"""Unigram of Hugging Face `tokenizers`."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from tokenizers import Tokenizer as Library
from tokenizers.trainers import UnigramTrainer

from harness.card import Card
from impls.tokenizers.interface import NoExport, Tokenizer, TokenizerPeer, TokenizerRecipe
from impls.tokenizers.peers._adopted import Adopted, one_thread
from impls.tokenizers.peers._hf import adopted_by_hf
from impls.tokenizers.unigram import UNK, Unigram, UnigramTokenizer

CARD = Card(
    cls="HFUnigram",
    title="Hugging Face Unigram",
    paper="https://github.com/huggingface/tokenizers",
    year=2020,
    summary="The tokenizers library's Unigram, in Rust.",
    packages=("tokenizers",),
    peer_of=("tokenizers/unigram",),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HFUnigram(TokenizerPeer):
    """The library on our vocabulary, or on one of its own."""

    threads: Literal[1] = 1  # set for the process, see `_adopted.one_thread`

    trains: ClassVar[bool] = True

    def adopt(self, tokenizer: Tokenizer) -> Adopted:
        """The library's tokenizer with exactly this vocabulary.

        Raises:
            NoExport: if it is no Unigram.
        """
        if not isinstance(tokenizer, UnigramTokenizer):
            raise NoExport(f"{type(tokenizer).__name__} is not a Unigram")
        return adopted_by_hf(tokenizer, decodes=False)

    def train(self, texts: Iterable[str], recipe: TokenizerRecipe) -> Adopted:
        """The library's lexicon under the recipe, without byte tokens, which its trainer lacks."""
        if not isinstance(recipe, Unigram):
            raise NoExport(f"{type(recipe).__name__} is not a Unigram recipe")
        recipe = replace(recipe, byte_fallback=False)
        one_thread()
        library = Library.from_str(UnigramTokenizer(recipe, ("a",), (-1.0,)).to_hf_json())
        trainer = UnigramTrainer(
            vocab_size=recipe.vocab_size,
            special_tokens=[UNK, *recipe.special_tokens],
            unk_token=UNK,
            max_piece_length=recipe.max_piece_length,
            shrinking_factor=recipe.shrink,
            show_progress=False,
        )
        library.train_from_iterator(texts, trainer)
        entries = json.loads(library.to_str())["model"]["vocab"][1 + len(recipe.special_tokens) :]
        pieces = [piece.replace("\u2581", " ") for piece, _ in entries]
        return self.adopt(UnigramTokenizer(recipe, pieces, np.array([s for _, s in entries])))
