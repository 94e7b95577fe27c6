"""The precompiled character map inside a `.model`.

    uint32 size of the trie in bytes | the trie, a darts-clone double array | replacements

The replacements are NUL-separated UTF-8; a value of the trie is where in them one starts. At each
place the longest key is replaced; a character no key starts with stays.
"""

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Charsmap(NamedTuple):
    """A character map ready for the kernel; empty arrays change nothing."""

    units: NDArray[np.uint32]  # double array
    replacements: NDArray[np.uint8]


def read_charsmap(data: bytes) -> Charsmap:
    """The map in the bytes of the field `precompiled_charsmap`; empty data is the empty map.

    Raises:
        ValueError: if the data is damaged or truncated.
    """
    if not data:
        return Charsmap(np.zeros(0, np.uint32), np.zeros(0, np.uint8))
    size = struct.unpack("<I", data[:4])[0] if len(data) >= 4 else 0
    if size < 4 or size % 4 or 4 + size >= len(data) or data[-1] != 0:
        raise ValueError(f"a damaged character map: {size} bytes of trie in {len(data)} bytes")
    units = np.frombuffer(data, np.uint32, size // 4, 4)
    return Charsmap(units, np.frombuffer(data, np.uint8, offset=4 + size))
