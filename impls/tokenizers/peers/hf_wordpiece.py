"""WordPiece of Hugging Face `tokenizers`; its trainer ranks pairs by frequency, as BPE does."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from tokenizers import Tokenizer as Library
from tokenizers.trainers import WordPieceTrainer

from harness.card import Card
from impls.tokenizers.interface import NoExport, Tokenizer, TokenizerPeer, TokenizerRecipe
from impls.tokenizers.peers._adopted import Adopted, one_thread
from impls.tokenizers.peers._hf import adopted_by_hf
from impls.tokenizers.wordpiece import WordPiece, WordPieceTokenizer

CARD = Card(
    cls="HFWordPiece",
    title="Hugging Face WordPiece",
    paper="https://github.com/huggingface/tokenizers",
    year=2019,
    summary="The tokenizers library's WordPiece, in Rust.",
    packages=("tokenizers",),
    peer_of=("tokenizers/wordpiece",),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HFWordPiece(TokenizerPeer):
    """The library on our vocabulary, or on one of its own."""

    threads: Literal[1] = 1  # set for the process, see `_adopted.one_thread`

    trains: ClassVar[bool] = True

    def adopt(self, tokenizer: Tokenizer) -> Adopted:
        """The library's tokenizer with exactly this vocabulary.

        Raises:
            NoExport: if it is no WordPiece.
        """
        if not isinstance(tokenizer, WordPieceTokenizer):
            raise NoExport(f"{type(tokenizer).__name__} is not a WordPiece")
        return adopted_by_hf(tokenizer, decodes=False)

    def train(self, texts: Iterable[str], recipe: TokenizerRecipe) -> Adopted:
        """The library's frequency merges under the recipe; order of tied pairs varies by run."""
        if not isinstance(recipe, WordPiece):
            raise NoExport(f"{type(recipe).__name__} is not a WordPiece recipe")
        blank = WordPieceTokenizer(recipe, recipe.special_tokens)
        one_thread()
        library = Library.from_str(blank.to_hf_json())
        trainer = WordPieceTrainer(
            vocab_size=recipe.vocab_size,
            min_frequency=recipe.min_frequency,
            special_tokens=list(recipe.special_tokens),
            show_progress=False,
        )
        library.train_from_iterator(texts, trainer)
        vocabulary = library.get_vocab(with_added_tokens=True)
        tokens = sorted(vocabulary, key=vocabulary.__getitem__)
        return self.adopt(WordPieceTokenizer(recipe, tokens))
