"""Retrieval pairs from docstrings: the first sentence asks, the rest of the docstring answers.

From the standard library, so nothing is downloaded; a pair is drawn by the hash of its name.
"""

import ast
import hashlib
import re
from typing import NamedTuple

from suites.data.embedded import library

SHORTEST = 60  # characters of an answer: less says too little to be found by
LONGEST = 1000  # characters of an answer that are kept


class Pair(NamedTuple):
    """A question and the passage that answers it."""

    name: str
    query: str
    passage: str


def docstring_pairs(n: int) -> list[Pair]:
    """The first n pairs by the hash of their names; no two have the same query or passage.

    Raises:
        ValueError: if there are fewer.
    """
    unique: dict[str, Pair] = {}
    passages: set[str] = set()
    for pair in sorted(_pairs(), key=_order):
        if pair.query not in unique and pair.passage not in passages:
            unique[pair.query] = pair
            passages.add(pair.passage)
    if len(unique) < n:
        raise ValueError(f"the standard library has {len(unique)} pairs, fewer than {n}")
    return list(unique.values())[:n]


def _pairs() -> list[Pair]:
    found = []
    for module, source in library():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                pair = _split(f"{module}:{node.name}", ast.get_docstring(node) or "")
                found += [pair] if pair else []
    return found


def _split(name: str, text: str) -> Pair | None:
    """A docstring's first sentence and what follows it, if both say enough."""
    first, _, rest = text.partition("\n\n")
    sentence = re.split(r"(?<=[.!?])\s", " ".join(first.split()), maxsplit=1)
    passage = " ".join((*sentence[1:], *rest.split()))
    long_enough = len(sentence[0]) >= 20 and len(passage) >= SHORTEST
    return Pair(name, sentence[0], passage[:LONGEST]) if long_enough else None


def _order(pair: Pair) -> bytes:
    return hashlib.sha256(f"{pair.name}\0{pair.query}".encode()).digest()
