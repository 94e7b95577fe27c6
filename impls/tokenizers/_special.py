"""Special tokens: texts cut at them, and which of them can be told apart."""

import re
from collections.abc import Collection, Mapping, Sequence


def split_special(
    text: str, allowed: Collection[str], special_tokens: Mapping[str, int]
) -> list[str]:
    """Text, special token, text, special token, ..., text; the longest token at each place.

    Raises:
        ValueError: if `allowed` names a token that is not special.
    """
    if isinstance(allowed, str):
        allowed = (allowed,)
    if unknown := sorted(set(allowed) - set(special_tokens)):
        raise ValueError(
            f"allowed_special names {unknown}; the special tokens are {sorted(special_tokens)}"
        )
    longest_first = sorted(allowed, key=len, reverse=True)
    return re.split(f"({'|'.join(map(re.escape, longest_first))})", text)


def checked_special(special_tokens: Sequence[str]) -> None:
    """Refuse special tokens that cannot be told apart.

    Raises:
        ValueError: if two are equal or one is empty.
    """
    if len(set(special_tokens)) < len(special_tokens) or "" in special_tokens:
        raise ValueError(f"special tokens must be distinct and not empty, got {special_tokens}")
