"""A library that runs the characters of fake_chars, and gets every tenth text wrong."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from impls.tokenizers.fake_chars import CharsTokenizer

from harness.card import Card
from impls.tokenizers.interface import NoExport, Ragged, Tokenizer, TokenizerPeer, TokenizerRecipe

CARD = Card(
    cls="FakePeer",
    title="Fake library",
    paper="none",
    year=2026,
    summary="Repeats fake characters.",
    packages=("numpy",),
    peer_of=("tokenizers/fake_chars",),
)


class WrongAtTimes(CharsTokenizer):
    def encode_batch(self, texts: Sequence[str]) -> Ragged:
        ragged = super().encode_batch(texts)
        for start in ragged.offsets[:-1:10]:
            ragged.ids[start] = self.vocab_size - 1 - ragged.ids[start]
        return ragged


@dataclass(frozen=True, kw_only=True, slots=True)
class FakePeer(TokenizerPeer):
    trains: bool = True  # type: ignore[misc]  # a field here, so that a test can switch it off

    adopts: bool = True

    def adopt(self, tokenizer: Tokenizer) -> Tokenizer:
        if not self.adopts:
            raise NoExport("only runs what it trained")
        return WrongAtTimes(tokenizer.recipe, tokenizer.alphabet)

    def train(self, texts: Iterable[str], recipe: TokenizerRecipe) -> Tokenizer:
        return WrongAtTimes(recipe, recipe.train(texts).alphabet)
