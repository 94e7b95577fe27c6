"""Speeds and ratios of works that take turns, for suites that time things."""

from collections.abc import Callable, Iterable, Sequence

from harness.instruments import Samples

Work = Callable[[], object]
Race = Callable[..., tuple[Samples, ...]]  # seconds of each work, a sample a round, in turns


def in_turn(works: Iterable[Work]) -> Work:
    """A work that at its n-th call does the n-th of these: each sample meets fresh things."""
    rest = iter(list(works))
    return lambda: next(rest)()


def mb_per_s(parts: Sequence[Sequence[str]], seconds: Samples) -> Samples:
    """Speed of each round in 10^6 bytes of UTF-8 a second; `parts` holds its texts.

    There may be more parts than rounds: the processes that repeat a cell share its rounds.
    """
    n_bytes = [sum(len(text.encode()) for text in part) for part in parts[: len(seconds)]]
    return [n / 1e6 / s for n, s in zip(n_bytes, seconds, strict=True)]


def ours_over_peer(seconds: Sequence[Samples]) -> Samples | None:
    """Speed of ours (the second) over that of the peer (the first), round by round."""
    if len(seconds) < 2:
        return None
    return over(*seconds)


def over(reference: Samples, ours: Samples) -> Samples:
    """Time of the reference over ours, round by round: how many times ours is as fast."""
    return [r / o for r, o in zip(reference, ours, strict=True)]


def milliseconds(seconds: Samples) -> Samples:
    """The same times in ms."""
    return [1000 * s for s in seconds]
