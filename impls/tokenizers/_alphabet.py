"""Which characters a vocabulary holds one by one."""

from collections.abc import Mapping

import numpy as np


def cover(counts: Mapping[str, int], coverage: float) -> set[str]:
    """The most frequent characters that make up the share `coverage` of counted words."""
    codes = np.frombuffer("".join(counts).encode("utf-32-le"), np.uint32)
    lengths = np.fromiter(map(len, counts), np.int64, len(counts))
    weights = np.repeat(np.fromiter(counts.values(), np.float64, len(counts)), lengths)
    letters, place = np.unique(codes, return_inverse=True)
    totals = np.bincount(place, weights)
    best_first = np.argsort(-totals, kind="stable")
    before = np.cumsum(totals[best_first]) - totals[best_first]
    return {chr(c) for c in letters[best_first[before < coverage * totals.sum()]].tolist()}
