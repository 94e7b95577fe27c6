"""Pre-tokenizers by name: the published regular expression and the scanner that equals it.

`PATTERNS` is the definition; `kernels/scan.py` is a state machine for the same splits that reads
UTF-8 directly. The character classes come from the `regex` package, so both agree on the Unicode
version; tests compare them over every code point.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final, Literal

import numpy as np
import regex
from numpy.typing import NDArray

from impls.tokenizers._utf8 import Utf8, utf8
from impls.tokenizers.kernels import scan

Pattern = Literal["gpt2", "cl100k", "o200k", "superwords", "words", "whitespace"]
BytePattern = Literal["gpt2", "cl100k", "o200k"]  # those that lose no byte of the text

_CONTRACTION: Final = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"

PATTERNS: Final[dict[Pattern, str]] = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "o200k": rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTION}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTION}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "superwords": r"\p{N}{1,3}|[^\r\n\p{N}]+[\r\n]*|[\r\n]+",
    "words": r"\w+|[^\w\s]+",
    "whitespace": r"\S+",
}

_CODES: Final[dict[Pattern, int]] = {
    "gpt2": scan.GPT2,
    "cl100k": scan.CL100K,
    "o200k": scan.O200K,
    "superwords": scan.SUPERWORDS,
    "words": scan.WORDS,
    "whitespace": scan.WHITESPACE,
}

_CLASSES: Final = (
    (scan.UPPER, r"[\p{Lu}\p{Lt}]+"),
    (scan.LOWER, r"\p{Ll}+"),
    (scan.CASELESS, r"[\p{Lm}\p{Lo}]+"),
    (scan.MARK, r"\p{M}+"),
    (scan.NUMBER, r"\p{N}+"),
    (scan.SPACE, r"\s+"),
    (scan.WORD, r"\w+"),
    (scan.NEWLINE, r"[\r\n]+"),
)

SPANS_PER_CALL: Final = 1 << 15  # 512 KiB of spans, so that they stay in a core's L2 cache


@cache
def character_classes() -> NDArray[np.uint8]:
    """The class bits of every code point, (0x110000,); surrogates have none."""
    characters = "".join(map(chr, range(0xD800))) + "\0" * 0x800
    characters += "".join(map(chr, range(0xE000, 0x110000)))
    classes = np.zeros(0x110000, np.uint8)
    for bit, expression in _CLASSES:
        for match in regex.finditer(expression, characters):
            classes[match.start() : match.end()] |= bit
    return classes


def spans(data: Utf8, pattern: Pattern) -> Iterator[NDArray[np.int64]]:
    """Blocks of [start, end) of the words of all texts, (at most `SPANS_PER_CALL`, 2).

    The end of each text is a row of its own that starts at -1. The array is reused: take what you
    need from a block before asking for the next one.
    """
    block = np.empty((SPANS_PER_CALL, 2), np.int64)
    cursor = np.zeros(2, np.int64)
    classes = character_classes()
    while cursor[0] < len(data.offsets) - 1:
        n = scan.spans(data.bytes, data.offsets, cursor, _CODES[pattern], classes, block)
        yield block[:n]


def split(text: str, pattern: Pattern) -> list[str]:
    """The words of one text, as `regex.findall(PATTERNS[pattern], text)` gives them."""
    return [word.decode() for word in split_bytes([text], pattern)]


def split_bytes(texts: Sequence[str], pattern: Pattern) -> list[bytes]:
    """The words of all texts as UTF-8."""
    data = utf8(texts)
    return [
        data.bytes[start:end].tobytes()
        for block in spans(data, pattern)
        for start, end in block.tolist()
        if start >= 0
    ]
