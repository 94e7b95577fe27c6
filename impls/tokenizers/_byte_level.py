"""Merges over bytes: GPT-2's numbering of them, the trained tokenizer, and its exports."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from impls.tokenizers._corpus import WordCounts
from impls.tokenizers._merges import MergeTokenizer, Segmenter, SpelledWords, TieRule, learn_merges
from impls.tokenizers._patterns import PATTERNS, Pattern
from impls.tokenizers._utf8 import joined
from impls.tokenizers.interface import Ids, checked_special

_PRINTABLE: Final = (*range(33, 127), *range(161, 173), *range(174, 256))
BYTES: Final = (*_PRINTABLE, *(b for b in range(256) if b not in _PRINTABLE))
"""The byte of each id: those GPT-2 shows as themselves, then the rest."""

BYTE_IDS: Final = np.argsort(BYTES).astype(np.uint32)  # (256,)
SYMBOLS: Final = [bytes([b]) for b in BYTES]

CHARACTERS: Final = {
    b: chr(b if id_ < len(_PRINTABLE) else 256 + id_ - len(_PRINTABLE))
    for id_, b in enumerate(BYTES)
}
"""GPT-2's printable character for each byte, a bijection."""


def check_recipe(vocab_size: int, min_frequency: int, special_tokens: Sequence[str]) -> None:
    """Refuse a vocabulary without room for the bytes.

    Raises:
        ValueError: naming the value and its bound.
    """
    least = 256 + len(special_tokens)
    if vocab_size < least:
        raise ValueError(
            f"vocab_size {vocab_size} cannot hold the 256 bytes and {len(special_tokens)} special "
            f"tokens: it must be at least {least}"
        )
    if min_frequency < 1:
        raise ValueError(f"min_frequency must be at least 1, got {min_frequency}")
    checked_special(special_tokens)


def first_merges(
    words: WordCounts, n_merges: int, min_frequency: int, tie_rule: TieRule
) -> NDArray[np.int64]:
    """(left, right, count) of merges that start from bytes, (M, 3)."""
    symbols = BYTE_IDS[words.arena].astype(np.int32)
    spelled = SpelledWords(symbols, words.starts, words.counts)
    return learn_merges(spelled, SYMBOLS, n_merges, min_frequency, tie_rule)


class ByteMergeTokenizer(MergeTokenizer):
    """Merges over bytes within the words of a pattern."""

    lossless = True
    pattern: Pattern | None = None  # of the words; None where it is the recipe's

    def __init__(self, recipe: Any, merges: NDArray[np.int64]) -> None:
        """Args: merges: (left, right) ids, (M, 2)."""
        pattern = self.pattern or recipe.pattern
        segmenter = Segmenter(pattern, merges, 256, BYTE_IDS, BYTE_IDS)
        super().__init__(recipe, SYMBOLS, merges, recipe.special_tokens, segmenter)

    def encode_bytes(self, data: bytes) -> Ids:
        """Ids of any data; a byte that is not UTF-8 is a symbol to the pattern."""
        return self.segmenter.encode(joined([data])).ids

    def state(self) -> dict[str, Any]:
        """The merges."""
        return {"merges": self.merges.tolist()}

    @classmethod
    def from_state(cls, recipe: Any, state: dict[str, Any]) -> Self:
        """The tokenizer `state()` was taken from."""
        return cls(recipe, checked_merges(state["merges"], 256))

    @property
    def expression(self) -> str:
        """The regular expression that splits text into words."""
        return PATTERNS[self.segmenter.pattern]

    def to_tiktoken(self) -> dict[bytes, int]:
        """Token bytes to rank, for `tiktoken.Encoding` with `expression` as its pattern."""
        return {piece: rank for rank, piece in enumerate(self.pieces[: 256 + len(self.merges)])}

    def to_hf_json(self) -> str:
        """A `tokenizer.json` with a ByteLevel pre-tokenizer and decoder."""
        shown = ["".join(CHARACTERS[b] for b in piece) for piece in self.pieces]
        learned = 256 + len(self.merges)
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
        return json.dumps(
            {
                "version": "1.0",
                "added_tokens": [hf_special(*item) for item in self.special_tokens.items()],
                "pre_tokenizer": _hf_pre_tokenizer(self.segmenter.pattern, byte_level),
                "decoder": {**byte_level, "use_regex": True},
                "model": {
                    "type": "BPE",
                    "vocab": {text: id_ for id_, text in enumerate(shown[:learned])},
                    "merges": [[shown[a], shown[b]] for a, b in self.merges.tolist()],
                },
            }
        )


def checked_merges(merges: Any, n_symbols: int) -> NDArray[np.int64]:
    """The merges of a file, (M, 2).

    Raises:
        ValueError: if one refers to an id that does not exist before it.
    """
    array = np.array(merges, np.int64).reshape(-1, 2)
    limits = n_symbols + np.arange(len(array))[:, None]
    if ((array < 0) | (array >= limits)).any():
        raise ValueError("a merge refers to an id that is made later or never")
    return array


def hf_special(text: str, id_: int) -> dict[str, Any]:
    """An entry of `added_tokens`."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id_, "content": text, **flags, "special": True}


def _hf_pre_tokenizer(pattern: Pattern, byte_level: Mapping[str, Any]) -> dict[str, Any]:
    if pattern == "gpt2":
        return {**byte_level, "use_regex": True}
    split = {
        "type": "Split",
        "pattern": {"Regex": PATTERNS[pattern]},
        "behavior": "Isolated",
        "invert": False,
    }
    return {"type": "Sequence", "pretokenizers": [split, {**byte_level, "use_regex": False}]}


def merges_of_ranks(ranks: Sequence[bytes]) -> NDArray[np.int64]:
    """The merges behind a rank file: 256 bytes in any order, then what each merge made.

    A token is the merge of the two that the merges before it leave of its bytes.

    Raises:
        ValueError: if that is not two tokens, so the ranks are not those of byte-level BPE.
    """
    if sorted(ranks[:256]) != sorted(SYMBOLS):
        raise ValueError("the first 256 ranks are not the 256 bytes")
    ids = {piece: id_ for id_, piece in enumerate([*SYMBOLS, *ranks[256:]])}
    merges = []
    for rank, token in enumerate(ranks[256:], 256):
        parts = [token[n : n + 1] for n in range(len(token))]
        while len(parts) > 2:
            pairs = (ids.get(a + b, rank) for a, b in pairwise(parts))
            id_, n = min((id_, n) for n, id_ in enumerate(pairs))
            if id_ >= rank:
                break
            parts[n : n + 2] = [parts[n] + parts[n + 1]]
        if len(parts) != 2:
            raise ValueError(f"token {token!r} of rank {rank} is not a merge of two before it")
        merges.append([ids[parts[0]], ids[parts[1]]])
    return np.array(merges, np.int64).reshape(-1, 2)
