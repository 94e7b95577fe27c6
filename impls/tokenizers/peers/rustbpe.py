"""rustbpe: a small trainer of byte-level BPE in Rust, from nanochat."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import rustbpe

from harness.card import Card
from impls.tokenizers._byte_level import ByteMergeTokenizer, merges_of_ranks
from impls.tokenizers._patterns import PATTERNS
from impls.tokenizers.interface import NoExport, Tokenizer, TokenizerPeer, TokenizerRecipe
from impls.tokenizers.peers._adopted import Adopted, one_thread, ragged

CARD = Card(
    cls="RustBPEPeer",
    title="rustbpe",
    paper="https://github.com/karpathy/rustbpe",
    year=2025,
    summary="A byte-level BPE trainer.",
    packages=("rustbpe",),
    peer_of=("tokenizers/byte_bpe",),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RustBPEPeer(TokenizerPeer):
    """One thread: it has no argument for that and reads RAYON_NUM_THREADS at its first call."""

    threads: Literal[1] = 1  # set for the process, see `_adopted.one_thread`

    trains: ClassVar[bool] = True

    def adopt(self, tokenizer: Tokenizer) -> Tokenizer:
        """Not possible.

        Raises:
            NoExport: always; the library only runs what it trained.
        """
        raise NoExport("rustbpe cannot be given a vocabulary; it only runs what it trained")

    def train(self, texts: Iterable[str], recipe: TokenizerRecipe) -> Tokenizer:
        """The library's own training; ties follow `byte_pair`, there is no least frequency.

        Raises:
            NoExport: if the recipe is not byte-level BPE in one stage.
        """
        if recipe.tokenizer_class is not ByteMergeTokenizer:
            raise NoExport(f"only byte-level BPE is trained here, not {type(recipe).__name__}")
        one_thread()
        library = rustbpe.Tokenizer()
        size = recipe.vocab_size - len(recipe.special_tokens)
        library.train_from_iterator(iter(texts), size, pattern=PATTERNS[recipe.pattern])
        ranks = [bytes(token) for token, _ in library.get_mergeable_ranks()]
        trained = ByteMergeTokenizer(recipe, merges_of_ranks(ranks))
        ours = dict(enumerate(map(trained.pieces.index, ranks[:256])))
        return Adopted(
            trained,
            library,
            lambda texts: ragged(
                [[ours.get(rank, rank) for rank in library.encode(text)] for text in texts]
            ),
            trained.decode_bytes,
        )
