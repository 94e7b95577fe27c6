"""Texts as one run of UTF-8 bytes, the form every compiled loop reads."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

PADDING: Final = b"\0" * 16  # the loops load words of eight bytes and may read past the end


class Utf8(NamedTuple):
    """Text n is bytes[offsets[n]:offsets[n + 1]]; PADDING follows the last one."""

    bytes: NDArray[np.uint8]  # (total + 16,)
    offsets: NDArray[np.int64]  # (N + 1,)

    @property
    def size(self) -> int:
        """Number of bytes of all texts."""
        return int(self.offsets[-1])


def utf8(texts: Sequence[str]) -> Utf8:
    """The texts in UTF-8.

    Raises:
        ValueError: if a text holds a lone surrogate, which UTF-8 cannot express.
    """
    return joined([encoded(text) for text in texts])


def encoded(text: str) -> bytes:
    """The text in UTF-8.

    Raises:
        ValueError: if the text holds a lone surrogate.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the text holds the lone surrogate {text[error.start]!a} at index {error.start}, "
            "which is not Unicode text: decode it with errors='replace' first"
        ) from error


def joined(parts: Sequence[bytes]) -> Utf8:
    """The byte strings, one after the other."""
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)), out=offsets[1:])
    # A bytearray is writable, so every array has one type and every kernel one specialisation.
    return Utf8(np.frombuffer(bytearray().join([*parts, PADDING]), np.uint8), offsets)
