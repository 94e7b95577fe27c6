"""What a model is trained to do with a batch of token ids: next token, masked tokens, lost spans.

An objective is called as `loss(model, batch)` with ids (B, T) int64 and gives the mean negative
log-likelihood in nats of the tokens it asks for. Its random choices come from torch's global
generator, which `Training` seeds by the step.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def next_token(model: nn.Module, batch: Tensor) -> Tensor:
    """Every token from those before it; for a decoder."""
    return _nll(model(batch[:, :-1]), batch[:, 1:])


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedTokens:
    """Some tokens from both sides, as BERT (arXiv:1810.04805); for an encoder.

    Of the chosen tokens 80 % are replaced by the mask, 10 % by a random token, 10 % not at all.
    """

    mask_id: int = 256
    share: float = 0.15

    def __post_init__(self) -> None:
        _check_share(self.share)

    def __call__(self, model: nn.Module, batch: Tensor) -> Tensor:
        """The loss on the chosen tokens."""
        chosen = torch.rand(batch.shape, device=batch.device) < self.share
        chosen[:, 0] |= ~chosen.any(1)  # a row without a target has no loss
        fate = torch.rand(batch.shape, device=batch.device)
        other = torch.randint_like(batch, self.mask_id)
        seen = torch.where(fate < 0.8, self.mask_id, torch.where(fate < 0.9, other, batch))
        hidden = model.hidden(torch.where(chosen, seen, batch))
        return _nll(model.logits(hidden[chosen]), batch[chosen])


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanCorruption:
    """Lost spans from what is left, as T5 (arXiv:1910.10683); for an encoder-decoder.

        encoder: A s0 B s1 ...        decoder, from `start_id`: s0 <span 0> s1 <span 1> ...

    Every row loses equally many tokens in equally many spans, so that a batch needs no padding.
    """

    start_id: int = 256
    first_sentinel: int = 257
    share: float = 0.15
    mean_span: float = 3.0

    def __post_init__(self) -> None:
        _check_share(self.share)
        if self.mean_span < 1:
            raise ValueError(f"mean_span must be at least 1, got {self.mean_span}")

    def __call__(self, model: nn.Module, batch: Tensor) -> Tensor:
        """The loss on the decoder's tokens, sentinels included."""
        lost = self.lost(batch)
        inputs, targets = self._marked(batch, lost), self._marked(batch, ~lost)
        start = torch.full_like(targets[:, :1], self.start_id)
        return _nll(model(inputs, torch.cat((start, targets[:, :-1]), dim=1)), targets)

    def lost(self, batch: Tensor) -> Tensor:
        """Which tokens are lost, (B, T) bool; rows begin with what is left and end with a span."""
        rows, n = batch.shape
        n_lost = min(max(round(n * self.share), 1), n - 1)
        n_spans = min(max(round(n_lost / self.mean_span), 1), n - n_lost)
        spans = _lengths(rows, n_lost, n_spans), _lengths(rows, n - n_lost, n_spans)
        bounds = torch.stack((spans[1], spans[0]), dim=-1).flatten(1).cumsum(1)  # (B, 2 spans)
        part = torch.searchsorted(bounds, torch.arange(n).expand(rows, n).contiguous(), right=True)
        return (part % 2 == 1).to(batch.device)

    def _marked(self, batch: Tensor, gone: Tensor) -> Tensor:
        """The tokens that stay, with one sentinel for each run of those that are gone."""
        begins = gone & ~F.pad(gone, (1, 0))[:, :-1]
        sentinels = self.first_sentinel + begins.cumsum(1) - 1
        marked = torch.where(begins, sentinels, batch)
        return marked[begins | ~gone].view(len(batch), -1)


def _lengths(rows: int, total: int, parts: int) -> Tensor:
    """`total` cut at random into `parts` of at least 1, in every row, (rows, parts)."""
    cuts = torch.rand(rows, total - 1).argsort(1)[:, : parts - 1].sort(1).values + 1
    ends = F.pad(cuts, (0, 1), value=total)
    return ends - F.pad(cuts, (1, 0))


def _nll(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten())


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"share must be above 0 and below 1, got {share}")
