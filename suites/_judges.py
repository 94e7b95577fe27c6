"""What a compressed model is judged by: windows of text for a decoder, sentences for an encoder.

Either is calibrated on text it is not judged on. N windows or sentences, T tokens, V vocabulary,
D width.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import log

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, normalize

from impls.compression.interface import Batch, Calibration, run
from suites.data.pairs import docstring_pairs
from suites.data.pretrained import SentenceModel
from suites.data.reading import nats

Judged = dict[str, list[float]]  # metrics of `compressed_quality` by name


class Subject(ABC):
    """A model to compress.

    Attributes:
        model: as it was.
        calibration: what a technique may run it on.
    """

    model: nn.Module
    calibration: Calibration

    @abstractmethod
    def divergence(self, compressed: nn.Module) -> list[float]:
        """How far its answers stray, one number a window or sentence; 0 is not at all.

        Of a decoder the mean KL divergence of the next token in nats, of an encoder 1 - cosine.
        """

    @abstractmethod
    def quality(self, compressed: nn.Module) -> Judged:
        """Metrics of `compressed_quality` by name."""


class Windows(Subject):
    """A causal model and windows of text.

    Args:
        model: the model.
        calibration: ids (N, T) to calibrate on.
        held_out: ids (N, T + 1) to judge on.
        n_bytes: bytes that the targets of each held-out window spell, (N,).
    """

    def __init__(
        self, model: nn.Module, calibration: Tensor, held_out: Tensor, n_bytes: Sequence[int]
    ) -> None:
        self.model = model
        self.calibration = Calibration(torch.split(calibration, 8))
        self.held_out, self.n_bytes = held_out, np.asarray(n_bytes)

    def divergence(self, compressed: nn.Module) -> list[float]:
        """Mean KL(original || compressed) of the next token, nats, a number a window."""
        found: list[float] = []
        for ids in torch.split(self.held_out[:, :-1], 8):
            exact, other = (_logits(m, ids).log_softmax(-1) for m in (self.model, compressed))
            kl = kl_div(other, exact, reduction="none", log_target=True).sum(-1)
            found += kl.double().mean(-1).tolist()
        return found

    def quality(self, compressed: nn.Module) -> Judged:
        """Bits a byte, and how many more than the original's, a number a window."""
        before, after = self._bits_per_byte(self.model), self._bits_per_byte(compressed)
        excess = [new - old for old, new in zip(before, after, strict=True)]
        return {"bits_per_byte": after, "excess_bits_per_byte": excess}

    def _bits_per_byte(self, model: nn.Module) -> list[float]:
        losses = [
            nats(_logits(model, window[:, :-1]), window[:, 1:]).double().sum(-1)
            for window in torch.split(self.held_out, 8)
        ]
        bits = torch.cat(losses).numpy() / log(2)
        return list((bits / np.maximum(self.n_bytes, 1)).tolist())


class Sentences(Subject):
    """A sentence encoder, and docstrings: passages to calibrate on, others to rank for queries.

    Args:
        loaded: the encoder.
        n_calibration: passages to calibrate on.
        n_held_out: pairs of query and passage to judge on.
    """

    def __init__(self, loaded: SentenceModel, n_calibration: int, n_held_out: int) -> None:
        self.model, self.loaded = loaded.model, loaded
        pairs = docstring_pairs(n_calibration + n_held_out)
        seen, judged = pairs[:n_calibration], pairs[n_calibration:]
        self.calibration = Calibration(loaded.batches([pair.passage for pair in seen], size=8))
        self.queries = [pair.query for pair in judged]
        self.passages = [pair.passage for pair in judged]

    def divergence(self, compressed: nn.Module) -> list[float]:
        """1 - cosine of each embedding to the original's."""
        return [1 - cosine for cosine in self.quality(compressed)["cosine"]]

    def quality(self, compressed: nn.Module) -> Judged:
        """Cosine to the original embeddings, and how passages are ranked.

        `ranking_agreement` is the share of a query's ten nearest passages that stay among them,
        `found_first` is 1 where a query's own passage is the nearest.
        """
        exact, other = (self._embedded(m) for m in (self.model, compressed))
        cosine = [(old * new).sum(-1) for old, new in zip(exact, other, strict=True)]
        before, after = (queries @ passages.T for queries, passages in (exact, other))
        n = min(10, len(self.passages))
        tops = [scores.topk(n, dim=-1).indices.tolist() for scores in (before, after)]
        agreement = [len({*old} & {*new}) / n for old, new in zip(*tops, strict=True)]
        first = after.argmax(-1) == torch.arange(len(after))
        return {
            "cosine": torch.cat(cosine).double().tolist(),
            "ranking_agreement": agreement,
            "found_first": first.double().tolist(),
        }

    def _embedded(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Unit embeddings of queries and passages, (N, D) each."""
        return tuple(  # type: ignore[return-value]
            torch.cat([_mean(model, batch) for batch in self.loaded.batches(texts)])
            for texts in (self.queries, self.passages)
        )


def _logits(model: nn.Module, ids: Tensor) -> Tensor:
    """Logits (N, T, V), whoever made the model."""
    out = model(ids)
    logits: Tensor = getattr(out, "logits", out)
    return logits.float()


def _mean(model: nn.Module, batch: Batch) -> Tensor:
    """Embeddings as all-MiniLM makes them: the mean of the tokens that are no padding, length 1."""
    assert not isinstance(batch, Tensor)  # noqa: S101 - sentences come with their mask
    out = run(model, batch)
    hidden = getattr(out, "last_hidden_state", out)
    keep = next(mask for name, mask in batch.items() if name in {"keep", "attention_mask"})
    summed = (hidden * keep[..., None]).sum(1) / keep.sum(1, keepdim=True)
    return normalize(summed.float(), dim=-1)
