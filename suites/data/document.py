"""A document: the unit in which texts are sampled, split and paired."""

from typing import NamedTuple


class Document(NamedTuple):
    """One text with the name it is drawn by.

    Documents of one topic (translations of each other) fall on the same side of a split.
    """

    name: str
    text: str
    topic: str
