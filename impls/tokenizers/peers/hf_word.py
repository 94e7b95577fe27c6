"""Hugging Face tokenizers: the WordLevel model, encoding and training."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from tokenizers import Tokenizer as Library
from tokenizers.trainers import WordLevelTrainer

from harness.card import Card
from impls.tokenizers.interface import NoExport, Tokenizer, TokenizerPeer, TokenizerRecipe
from impls.tokenizers.peers._adopted import one_thread
from impls.tokenizers.peers._hf import adopted_by_hf
from impls.tokenizers.word import Word, WordTokenizer

CARD = Card(
    cls="HFWordPeer",
    title="Hugging Face tokenizers (WordLevel)",
    paper="https://github.com/huggingface/tokenizers",
    year=2019,
    summary="The WordLevel model of Hugging Face tokenizers.",
    packages=("tokenizers",),
    peer_of=("tokenizers/word",),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HFWordPeer(TokenizerPeer):
    """The library on our vocabulary, or on one of its own."""

    threads: Literal[1] = 1  # set for the process, see `_adopted.one_thread`

    trains: ClassVar[bool] = True

    def adopt(self, tokenizer: Tokenizer) -> Tokenizer:
        """The library's tokenizer with exactly this vocabulary."""
        return adopted_by_hf(tokenizer)

    def train(self, texts: Iterable[str], recipe: TokenizerRecipe) -> Tokenizer:
        """The library's own training; ids are moved so that special tokens follow the words.

        Raises:
            NoExport: if the recipe is not one of words.
        """
        if not isinstance(recipe, Word):
            raise NoExport(f"a WordLevel model cannot follow {type(recipe).__name__}")
        special = [recipe.unk_token, *recipe.special_tokens]
        one_thread()
        library = Library.from_str(WordTokenizer(recipe, []).to_hf_json())
        trainer = WordLevelTrainer(
            vocab_size=recipe.vocab_size,
            min_frequency=recipe.min_frequency,
            special_tokens=special,
            show_progress=False,
        )
        library.train_from_iterator(texts, trainer)
        vocabulary = library.get_vocab(with_added_tokens=False)
        words = sorted(vocabulary.keys() - set(special), key=vocabulary.__getitem__)
        return self.adopt(WordTokenizer(recipe, [word.encode() for word in words]))
