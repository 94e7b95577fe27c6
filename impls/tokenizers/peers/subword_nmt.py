"""subword-nmt: the reference implementation of BPE by the paper's authors, in Python."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import ClassVar, Literal

import numpy as np
from subword_nmt import apply_bpe
from subword_nmt.learn_bpe import learn_bpe

from harness.card import Card
from impls.tokenizers._patterns import split
from impls.tokenizers.bpe import BPE, MARKER, BPETokenizer
from impls.tokenizers.interface import NoExport, Tokenizer, TokenizerPeer, TokenizerRecipe
from impls.tokenizers.peers._adopted import Adopted, ragged

CARD = Card(
    cls="SubwordNMTPeer",
    title="subword-nmt",
    paper="arXiv:1508.07909",
    year=2015,
    summary="The BPE of Sennrich, Haddow and Birch.",
    packages=("subword_nmt",),
    peer_of=("tokenizers/bpe",),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SubwordNMTPeer(TokenizerPeer):
    """Words are split as ours are; the library itself splits at spaces only."""

    threads: Literal[1] = 1

    trains: ClassVar[bool] = True

    def adopt(self, tokenizer: Tokenizer) -> Tokenizer:
        """The library with exactly these merges.

        Raises:
            NoExport: if the tokenizer is not BPE over characters.
        """
        if not isinstance(tokenizer, BPETokenizer):
            raise NoExport(f"subword-nmt merges characters, not {type(tokenizer).__name__}")
        tokens = tokenizer.tokens()
        merges = "".join(f"{tokens[a]} {tokens[b]}\n" for a, b in tokenizer.merges.tolist())
        library = apply_bpe.BPE(StringIO(f"#version: 0.2\n{merges}"))
        ids = {token: id_ for id_, token in enumerate(tokens)}

        def encode_batch(texts: Sequence[str]):  # noqa: ANN202
            return ragged([_ids(text, library, ids, tokenizer.unk_id) for text in texts])

        return Adopted(tokenizer, library, encode_batch, tokenizer.decode_bytes)

    def train(self, texts: Iterable[str], recipe: TokenizerRecipe) -> Tokenizer:
        """The library's own training; its ties follow `greatest_text`.

        Raises:
            NoExport: if the recipe is not BPE over characters.
        """
        if not isinstance(recipe, BPE):
            raise NoExport(f"subword-nmt merges characters, not {type(recipe).__name__}")
        lines = [" ".join(split(text, "whitespace")) for text in texts]
        characters = "".join(sorted(set("".join(lines)) - {" "}))
        learned = StringIO()
        room = recipe.vocab_size - 2 * len(characters) - 1 - len(recipe.special_tokens)
        learn_bpe(lines, learned, room, recipe.min_frequency)
        ids = {c: n for n, c in enumerate(characters)}
        ids |= {c + MARKER: len(characters) + n for n, c in enumerate(characters)}
        merges = []
        for line in learned.getvalue().splitlines()[1:]:
            left, right = line.split(" ")
            merges.append((ids[left], ids[right]))
            ids[left + right] = len(ids)
        return self.adopt(BPETokenizer(recipe, characters, np.array(merges).reshape(-1, 2)))


def _ids(text: str, library: apply_bpe.BPE, ids: dict[str, int], unknown: int) -> list[int]:
    found = []
    for word in split(text, "whitespace"):
        *pieces, last = library.segment_tokens([word])
        found += [ids.get(piece.removesuffix(library.separator), unknown) for piece in pieces]
        found.append(ids.get(last + MARKER, unknown))
    return found
