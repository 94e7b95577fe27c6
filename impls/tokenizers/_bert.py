"""BERT's pre-tokenization as a table over code points, for a compiled scanner.

    text -> words          split at spaces (dropped) and around every punctuation or ideograph

BERT's normalization looks at one character at a time, so normalizing and splitting are one pass
over a table: what each code point becomes, and the class of each result. Unicode is large and a
text uses little of it, so the table is filled by pages of 256 when a scan first meets one.
"""

import unicodedata
from functools import cache

import numpy as np

from impls.tokenizers._normalize import Normalizer, bert, is_ideograph, is_punctuation, is_stripped

# Class of an entry, in its bits from 24 on; below are a code point or an index into `sequences`.
LETTER, ALONE, SPACE, SEQUENCE, DROPPED, UNKNOWN = range(6)
N_CODES = 0x110000


class CodeTable:
    """What each code point becomes under `bert`, or under no change of characters."""

    def __init__(self, *, uncased: bool) -> None:
        self.uncased = uncased
        self.entries = np.full(N_CODES, UNKNOWN << 24, np.uint32)
        self.sequences = np.zeros(0, np.uint32)  # length, then that many entries; repeated
        self.fill(0)

    def fill(self, code: int) -> None:
        """Enter the page of 256 code points that holds `code`; `is_reordered` ones stay unknown."""
        first = code & ~255
        if self._fill_alike(first):
            return
        sequences = self.sequences.tolist()
        for c in range(first, first + 256):
            row = self._row(chr(c))
            if self.uncased and is_reordered(chr(c)):
                continue
            if len(row) > 1:
                self.entries[c] = SEQUENCE << 24 | len(sequences)
                sequences += [len(row), *row]
            else:
                self.entries[c] = row[0] if row else DROPPED << 24
        if len(sequences) > len(self.sequences):
            self.sequences = np.array(sequences, np.uint32)

    def _fill_alike(self, first: int) -> bool:
        """Enter at once a page of which nothing decomposes: unassigned, private or ideographs.

        Those are 9 of 10 pages, and milliseconds each if looked at one by one.
        """
        page = "".join(map(chr, range(first, first + 256)))
        (category, *others) = {unicodedata.category(char) for char in page}
        if (
            others
            or category not in ("Cn", "Co", "Lo")
            or unicodedata.normalize("NFD", page) != page
        ):
            return False
        row, last = self._row(page[0]), self._row(page[-1])
        if [entry >> 24 for entry in row] != [entry >> 24 for entry in last]:
            return False  # a block of ideographs ends within the page
        codes = np.arange(first, first + 256, dtype=np.uint32)
        self.entries[first : first + 256] = codes | row[0] & ~0xFFFFFF if row else DROPPED << 24
        return True

    def _row(self, char: str) -> list[int]:
        if "\ud800" <= char <= "\udfff":
            return []
        if not self.uncased:
            return [ord(char) | _class(char) << 24]
        if is_ideograph(ord(char)):
            return [ord(c) | ALONE << 24 for c in bert(char).strip()]
        return [ord(c) | _class(c) << 24 for c in bert(char)]


@cache
def code_table(normalizer: Normalizer) -> CodeTable:
    """The process's one table for a normalizer; all but `bert` leave characters alone here."""
    return CodeTable(uncased=normalizer == "bert")


def is_reordered(char: str) -> bool:
    """Whether BERT keeps a mark that NFD may move: no table of single characters covers it."""
    return unicodedata.combining(char) > 0 and not is_stripped(char)


def _class(char: str) -> int:
    # U+001C to U+001F are spaces to Python only.
    if char.isspace() and not "\x1c" <= char <= "\x1f":
        return SPACE
    return ALONE if is_punctuation(char) else LETTER
