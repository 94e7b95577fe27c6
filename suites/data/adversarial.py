"""Texts that bring out the worst in a tokenizer: no place to part them, nothing seen before."""

from collections.abc import Callable
from time import perf_counter

import numpy as np


def unbroken_text(rng: np.random.Generator, n_bytes: int) -> str:
    """Random lower-case letters without a space: one word, quadratic for a careless merge loop."""
    return rng.integers(ord("a"), ord("z") + 1, n_bytes, dtype=np.uint8).tobytes().decode()


def unicode_text(rng: np.random.Generator, n_bytes: int) -> str:
    """Random characters of all planes, most of 4 bytes: hardly a merge applies, no cache hits."""
    scalars = rng.integers(0x20, 0x110000, n_bytes // 4, dtype=np.uint32)
    surrogate = (scalars >= 0xD800) & (scalars < 0xE000)
    return scalars[~surrogate].astype("<u4").tobytes().decode("utf-32-le")


def hostile_texts(
    encode: Callable[[str], object], *, n_bytes: int, count: int, seed: int
) -> list[list[str]]:
    """`count` unbroken texts and `count` of random characters, of `n_bytes` if that is affordable.

    A quadratic merge loop would take hours over a megabyte, so a kind's size grows fourfold only
    while the next is expected within a second.
    """
    rng = np.random.default_rng(seed)
    kinds = []
    for draw in (unbroken_text, unicode_text):
        size = min(1000, n_bytes)
        while size < n_bytes and _seconds(encode, draw(rng, size)) < 1 / 16:
            size = min(4 * size, n_bytes)
        kinds.append([draw(rng, size) for _ in range(count)])
    return kinds


def _seconds(encode: Callable[[str], object], text: str) -> float:
    start = perf_counter()
    encode(text)
    return perf_counter() - start
