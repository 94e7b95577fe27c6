"""How a trained decoder reads windows under each technique, in one pass and through the cache.

N windows, T tokens, K tokens scored, V vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from impls.context.interface import DecodeRule, ModelRule
from impls.models.decoder import Decoder

Logits = Callable[[Tensor], Tensor]  # ids (N, T) to logits (N, K or T, V) of the last positions

PROMPT = 8  # tokens before those scored that follow every context of a decoding rule


class Reader(NamedTuple):
    """A model that reads."""

    logits: Logits
    cached_logits: Logits | None  # None: the technique has no way through a cache


@contextmanager
def reader(
    technique: Any, model: Decoder, *, train_len: int, length: int, tail: int
) -> Iterator[Reader]:
    """The model as it reads `length` tokens under a technique, of which it scores `tail`."""
    if isinstance(technique, DecodeRule):
        yield Reader(_by_contexts(technique, model, train_len, tail), None)
    elif isinstance(technique, ModelRule):
        with technique.applied(model, train_len=train_len, target_len=length):
            yield Reader(model, _token_by_token(model))
    else:
        yield Reader(model, _token_by_token(model))


def _token_by_token(model: Decoder) -> Logits:
    def logits(ids: Tensor) -> Tensor:
        state = model.init_state(*ids.shape)
        return torch.cat([model(token, state=state) for token in torch.split(ids, 1, dim=1)], dim=1)

    return logits


def _by_contexts(rule: DecodeRule, model: Decoder, train_len: int, tail: int) -> Logits:
    """Text before the prompt as contexts, each as long as the trained length allows."""
    room = train_len - PROMPT - tail
    if room < 1:
        raise ValueError(
            f"train_len {train_len} has no room for a context beside {PROMPT} tokens of prompt and "
            f"{tail} of tail: shorten tail"
        )

    def logits(ids: Tensor) -> Tensor:
        return torch.stack([row_logits(row) for row in ids])

    def row_logits(row: Tensor) -> Tensor:
        before, prompt = row[: 1 - tail - PROMPT], row[1 - tail - PROMPT : len(row) - tail + 1]
        # What follows the last token is predicted, not read: any id stands in its place.
        continuation = torch.cat((row[len(row) - tail + 1 :], row[:1]))
        latest_first = torch.split(before.flip(0), room)  # so that only the earliest is short
        contexts = [context.flip(0) for context in reversed(latest_first)]
        return rule.log_probabilities(model, contexts, prompt, continuation)

    return logits
