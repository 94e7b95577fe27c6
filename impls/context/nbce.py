"""Naive Bayes context extension: several contexts are read side by side, their predictions joined.

    log p(t | S_1 .. S_n) = (1 + beta) log p(t | S_k) - beta log p(t | no context) + const

k the context whose prediction has the least entropy; the one chosen for the token before has eta
less, so that the choice does not flicker. Predictions are cut to their most likely tokens of
probability `top_p`; a token that is cut without context is not contrasted. Contexts do not see each
other, so their order means nothing, and the cost is linear in their number. Defaults as released.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.card import Card
from impls.context.interface import DecodeRule
from impls.models.decoder import Decoder

CARD = Card(
    cls="NBCE",
    title="Naive Bayes context extension",
    paper="https://github.com/bojone/NBCE",
    year=2023,
    summary="Joins the predictions given each of several contexts, by the surest, against none.",
    oracle="identity: with empty contexts it is the plain model at every beta",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class NBCE(DecodeRule):
    """Naive Bayes over contexts."""

    beta: float = 0.25
    top_p: float = 0.95
    eta: float = 0.1  # nats

    def __post_init__(self) -> None:
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.beta < 0 or self.eta < 0:
            raise ValueError(f"beta and eta must not be negative, got {self.beta}, {self.eta}")

    def combine(
        self, with_context: Tensor, without: Tensor, chosen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Joint log-probabilities (V,), -inf where cut, and the chosen context, a scalar."""
        joint, k = self._joint(with_context, without, chosen)
        cut = _cut(with_context[k], self.top_p)
        return joint.masked_fill(cut, float("-inf")).log_softmax(-1), k

    def log_probabilities(
        self, model: nn.Module, contexts: Sequence[Tensor], prompt: Tensor, continuation: Tensor
    ) -> Tensor:
        """Joint log-probabilities (T, V) of every token, none cut: a true token may be unlikely."""
        _check(contexts, prompt=prompt, continuation=continuation)
        rows = _predictions(model, contexts, torch.cat((prompt, continuation[:-1])))
        rows = rows[:, len(prompt) - 1 :]  # (n + 1, T, V), the last without context
        joint, chosen = [], None
        for step in rows.unbind(1):
            told, chosen = self._joint(step[:-1], step[-1], chosen)
            joint.append(told.log_softmax(-1))
        return torch.stack(joint)

    def generate(
        self,
        model: nn.Module,
        contexts: Sequence[Tensor],
        prompt: Tensor,
        n_tokens: int,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Ids (n_tokens,), greedy without a generator; every step reads all rows anew."""
        _check(contexts, prompt=prompt)
        ids, chosen = prompt, None
        for _ in range(n_tokens):
            step = _predictions(model, contexts, ids)[:, -1]
            told, chosen = self.combine(step[:-1], step[-1], chosen)
            drawn = (
                told.argmax(-1, keepdim=True)
                if generator is None
                else torch.multinomial(told.exp(), 1, generator=generator)
            )
            ids = torch.cat((ids, drawn))
        return ids[len(prompt) :]

    def _joint(
        self, with_context: Tensor, without: Tensor, chosen: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The surest context's log-probabilities against none, not normalised, and which it is."""
        masked = with_context.masked_fill(_cut(with_context, self.top_p), float("-inf"))
        p = masked.softmax(-1)
        entropy = torch.special.entr(p).sum(-1)  # (n,)
        if chosen is not None:
            entropy = entropy.index_add(0, chosen[None], entropy.new_tensor([-self.eta]))
        k = entropy.argmin()
        contrasted = (1 + self.beta) * with_context[k] - self.beta * without
        return torch.where(_cut(without, self.top_p), with_context[k], contrasted), k


def _check(contexts: Sequence[Tensor], **ids: Tensor) -> None:
    """Refuse what leaves nothing to read or to predict.

    Raises:
        ValueError: naming it.
    """
    if not contexts:
        raise ValueError("need at least one context; an empty one is a context too")
    for name, tokens in ids.items():
        if not len(tokens):
            raise ValueError(f"the {name} must have at least one token")


def _cut(logp: Tensor, top_p: float) -> Tensor:
    """True for tokens outside the smallest set of the likeliest that has probability top_p."""
    if top_p == 1:
        return torch.zeros_like(logp, dtype=torch.bool)
    ordered, places = logp.softmax(-1).sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered  # of those more likely
    return torch.zeros_like(before, dtype=torch.bool).scatter(-1, places, before >= top_p)


def _predictions(model: nn.Module, contexts: Sequence[Tensor], ids: Tensor) -> Tensor:
    """Log-probabilities (n + 1, t, V) after each of ids (t,), given each context and then none."""
    rows = [torch.cat((context, ids)) for context in (*contexts, ids[:0])]
    width = max(map(len, rows))
    batch = ids.new_zeros(len(rows), width)
    keep = torch.zeros(batch.shape, dtype=torch.bool, device=ids.device)
    for row, out, kept in zip(rows, batch, keep, strict=True):
        out[width - len(row) :], kept[width - len(row) :] = row, True
    pos = (keep.cumsum(1) - 1).clamp(min=0)
    if isinstance(model, Decoder):
        logits = model(batch, pos=pos, keep=keep)
    else:
        logits = model(batch, attention_mask=keep.long(), position_ids=pos).logits
    return logits[:, -len(ids) :].float().log_softmax(-1)
