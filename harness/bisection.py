"""The first bad one of a row of commits, by halving, past those that cannot be judged."""

from collections.abc import Callable, Sequence
from typing import Literal

Answer = Literal["good", "bad", "skip"]


def search(commits: Sequence[str], ask: Callable[[str], Answer]) -> list[str]:
    """The first bad commit; several where those between good and bad could not be judged.

    Args:
        commits: oldest first; what precedes them is good, and the last of them is bad.
        ask: whether a commit is good, bad, or to be skipped; asked at most once each.
    """
    good, bad = -1, len(commits) - 1
    skipped: set[int] = set()
    while unknown := [place for place in range(good + 1, bad) if place not in skipped]:
        place = min(unknown, key=lambda one: abs(2 * one - good - bad))  # nearest to the middle
        answer = ask(commits[place])
        if answer == "good":
            good = place
        elif answer == "bad":
            bad = place
        else:
            skipped.add(place)
    return list(commits[good + 1 : bad + 1])
