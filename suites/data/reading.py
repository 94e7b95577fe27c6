"""What a language model makes of held-out text: its loss on the end of windows, and recall.

Windows of every length end at the same places, so that lengths compare token by token; only the
last tokens count, for an average over a window hides how it fares at the end behind how it fares at
the beginning. N windows, T tokens, K tokens scored, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from suites.data.recall import Recall

Logits = Callable[[Tensor], Tensor]  # ids (N, T) to logits of the last K positions at least

BATCH_TOKENS = 8192  # of one call; bounds the memory of methods that write T x T biases
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Exam:
    """Windows of held-out text, and how they are scored."""

    tokens: NDArray[np.int64]  # held-out ids
    token_bytes: NDArray[np.int64]  # bytes of each id of the vocabulary
    longest: int  # tokens of the longest window
    n_windows: int
    tail: int  # tokens scored at the end of each window

    def __post_init__(self) -> None:
        if len(self.tokens) < self.longest + self.n_windows:
            raise ValueError(
                f"{len(self.tokens)} held-out tokens are too few for {self.n_windows} windows of "
                f"{self.longest}: raise corpus_bytes or shorten train_len"
            )

    def windows(self, length: int) -> NDArray[np.int64]:
        """(N, length + 1): each one's inputs and, shifted by one, its targets."""
        ends = np.linspace(self.longest, len(self.tokens) - 1, self.n_windows).astype(np.int64)
        windows: NDArray[np.int64] = self.tokens[ends[:, None] + np.arange(-length, 1)]
        return windows

    def bits_per_byte(self, losses: Tensor, windows: NDArray[np.int64]) -> list[float]:
        """Losses (N, K) of the last K targets as bits over the bytes they spell, one a window."""
        n_bytes = self.token_bytes[windows[:, -losses.shape[1] :]].sum(1)
        bits = losses.double().sum(1).numpy() / log(2)
        return list((bits / np.maximum(n_bytes, 1)).tolist())

    def losses(self, logits: Logits, length: int) -> tuple[Tensor, NDArray[np.int64]]:
        """Losses (N, tail) at the end of windows of this length, and the windows."""
        windows = self.windows(length)
        ids = torch.from_numpy(windows)
        size = max(1, BATCH_TOKENS // length)
        parts = [
            nats(logits(batch[:, :-1])[:, -self.tail :], batch[:, -self.tail :])
            for batch in torch.split(ids, size)
        ]
        return torch.cat(parts), windows


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """-log p of each target (N, K) under logits (N, K, V)."""
    logp = logits.float().log_softmax(-1)
    return -logp.gather(-1, targets[..., None])[..., 0]


def recall_accuracy(
    logits: Logits, exam: Exam, recall: Recall, length: int, seed: int
) -> dict[float, list[float]]:
    """By depth of the planted pair: 1 where its value is the likeliest of all values, else 0."""
    found = {}
    choices = torch.from_numpy(recall.values)
    for depth in DEPTHS:
        rng = np.random.default_rng((seed, round(100 * depth)))
        asked, answers = recall.ask(exam.windows(length)[:, :-1], depth, rng)
        batches = torch.split(torch.from_numpy(asked), max(1, BATCH_TOKENS // length))
        last = torch.cat([logits(batch)[:, -1] for batch in batches])  # (N, V)
        told = choices[last[:, choices].argmax(-1)].numpy()
        found[depth] = (told == answers).astype(float).tolist()
    return found


def depths(by_depth: dict[float, list[float]]) -> dict[str, float]:
    """Share recalled at each depth."""
    return {str(depth): sum(trials) / len(trials) for depth, trials in by_depth.items()}


def flat(by_depth: dict[float, list[float]]) -> list[float]:
    """All trials, whatever their depth."""
    return [trial for trials in by_depth.values() for trial in trials]
