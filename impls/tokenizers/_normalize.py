"""Normalizers by name: what a technique may do to a text before it looks for tokens.

    none  the text itself
    nfc   canonical composition (UAX #15)
    nfkc  compatibility composition
    bert  clean, space out CJK, NFD without nonspacing marks, lower-case, each character alone

Every one but `none` loses information, so a tokenizer that uses it is not lossless.
"""

import unicodedata
from typing import Literal, get_args

from impls.tokenizers._unicode8 import NEWER

Normalizer = Literal["none", "nfc", "nfkc", "bert"]

# CJK blocks of BERT's own tokenizer; extension E starts at 2B820, the released code has 2B920.
_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
_ONCE_PUNCTUATION = "\u166d\U000111c9"  # of another class since Unicode 8
_ONCE_MARKS = "\u1734"
_DROPPED = frozenset(("Cc", "Cf", "Co", "Cs"))


def require_normalizer(name: str) -> None:
    """Check a normalizer's name.

    Raises:
        ValueError: if there is no such normalizer.
    """
    if name not in get_args(Normalizer):
        raise ValueError(f"normalizer must be one of {get_args(Normalizer)}, got {name!r}")


def normalize(name: Normalizer, text: str) -> str:
    """The text as the named normalizer leaves it."""
    if name == "none":
        return text
    if name == "bert":
        return bert(text)
    return text if text.isascii() else unicodedata.normalize(name.upper(), text)


def bert(text: str) -> str:
    """BERT's uncased normalization, as the `tokenizers` library's BertNormalizer does it.

    Character classes are those of Unicode 8, as in the library.
    """
    cleaned = "".join(map(bert_clean, text))
    decomposed = unicodedata.normalize("NFD", cleaned)
    # Each character is lowered alone: the library knows no context, so a final sigma stays σ.
    return "".join(c.lower() for c in decomposed if not is_stripped(c))


def bert_clean(char: str) -> str:
    """One character without controls, every space plain, an ideograph between spaces."""
    if char in "\t\n\r":
        return " "
    if char == "\ufffd" or (unicodedata.category(char) in _DROPPED and char not in NEWER):
        return ""
    if char.isspace():
        return " "
    if is_ideograph(ord(char)):
        return f" {char} "
    return char


def is_ideograph(code: int) -> bool:
    """Whether BERT takes the code point for a word of its own."""
    return any(low <= code <= high for low, high in _CJK)


def is_punctuation(char: str) -> bool:
    """Whether BERT splits at the character: every ASCII symbol, and Unicode class P."""
    if char.isascii():
        return char.isprintable() and not char.isalnum() and char != " "
    if char in NEWER:
        return char in _ONCE_PUNCTUATION
    return unicodedata.category(char).startswith("P") or char in _ONCE_PUNCTUATION


def is_stripped(char: str) -> bool:
    """Whether BERT takes the character for an accent."""
    return (unicodedata.category(char) == "Mn" and char not in NEWER) or char in _ONCE_MARKS
