"""Lists of names in a sentence."""

from collections.abc import Sequence

MOST_NAMES = 8


def several(names: Sequence[str]) -> str:
    """The names, or the first of many and how many more there are."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "")
