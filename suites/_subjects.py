"""What is compressed, and what it is judged by: a decoder trained here, MiniLM, a model of the hub.

A decoder reads held-out windows, a sentence encoder embeds sentences and ranks passages. Either is
calibrated on text it is not judged on. N windows or sentences, T tokens, V vocabulary, D width.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, normalize

from harness.instruments import Instruments
from impls.compression.interface import Batch, Calibration, inject_outliers, run
from suites.data import corpus
from suites.data.decoders import Lesson, LessonSetting, trained
from suites.data.pairs import docstring_pairs
from suites.data.pretrained import CausalModel, SentenceModel, from_hub, minilm
from suites.data.reading import nats

Judged = dict[str, list[float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class SubjectSetting:
    """The axes of a suite that compresses a model."""

    model: str = "decoder"  # decoder, minilm, hf:NAME
    only: str = "*"  # which linear layers of the blocks, a pattern of names as of a shell
    outlier_factor: float = 1.0  # of injected outlier channels; 1: none
    outlier_channels: int = 4
    n_calibration: int = 32  # windows or sentences a technique may read
    n_held_out: int = 64  # windows or pairs the model is judged on
    data: str = "code"  # what a decoder reads, as of `llmatrix show perplexity`
    corpus_bytes: int = 4_000_000
    size: str = "3m"  # of the decoder trained here
    n_layers: int = 4
    train_len: int = 128  # tokens
    train_steps: int = 800
    train_batch: int = 8
    train_lr: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.model not in {"decoder", "minilm"} and not self.model.startswith("hf:"):
            raise ValueError(f"model must be decoder, minilm or hf:NAME, got {self.model!r}")
        for name in ("n_calibration", "n_held_out", "outlier_channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.outlier_factor > 0:
            raise ValueError(f"outlier_factor must be above 0, got {self.outlier_factor}")
        self.lesson()  # refuses what cannot be trained

    def lesson(self) -> LessonSetting:
        """How the decoder is trained."""
        return LessonSetting(
            data=self.data, corpus_bytes=self.corpus_bytes, size=self.size,
            n_layers=self.n_layers, train_len=self.train_len, steps=self.train_steps,
            batch=self.train_batch, lr=self.train_lr, recall_share=0.0, seed=self.seed,
        )  # fmt: skip


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


def subject(technique: Any, setting: SubjectSetting, instruments: Instruments) -> Subject:
    """The model of a setting, with outliers if asked for."""
    if setting.model == "decoder":
        found: Subject = _trained_here(technique, setting, instruments)
    else:
        name = setting.model.removeprefix("hf:")
        loaded = minilm() if setting.model == "minilm" else from_hub(name)
        found = (
            Sentences(loaded, setting)
            if isinstance(loaded, SentenceModel)
            else _causal(loaded, setting, instruments)
        )
    if setting.outlier_factor != 1.0:
        found.model = inject_outliers(
            found.model,
            factor=setting.outlier_factor,
            channels=setting.outlier_channels,
            seed=setting.seed,
        )
    return found


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
    """A sentence encoder, sentences, and passages to rank for queries."""

    def __init__(self, loaded: SentenceModel, setting: SubjectSetting) -> None:
        self.model, self.loaded = loaded.model, loaded
        pairs = docstring_pairs(setting.n_calibration + setting.n_held_out)
        seen, judged = pairs[: setting.n_calibration], pairs[setting.n_calibration :]
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


def _trained_here(technique: Any, setting: SubjectSetting, instruments: Instruments) -> Windows:
    lesson = Lesson.of(setting.lesson(), instruments)
    pupil = trained(technique, lesson, instruments)
    instruments.note(corpus=lesson.facts)
    held_out = _windows(torch.from_numpy(lesson.held_out), setting.n_held_out, setting.train_len)
    n_bytes = lesson.token_bytes[held_out[:, 1:].numpy()].sum(1)
    seen = _windows(torch.from_numpy(lesson.tokens), setting.n_calibration, setting.train_len)
    return Windows(pupil.model, seen[:, :-1], held_out, n_bytes)


def _causal(loaded: CausalModel, setting: SubjectSetting, instruments: Instruments) -> Windows:
    texts = corpus.load(setting.data, instruments, n_bytes=setting.corpus_bytes, seed=0)
    instruments.note(corpus=texts.facts())
    seen, held_out = (
        _windows(loaded.ids(part), n, setting.train_len)
        for part, n in (
            (texts.train_texts, setting.n_calibration),
            (texts.held_out_texts, setting.n_held_out),
        )
    )
    n_bytes = [loaded.token_bytes(window[1:]) for window in held_out]
    return Windows(loaded.model, seen[:, :-1], held_out, n_bytes)


def _windows(tokens: Tensor, n: int, length: int) -> Tensor:
    """Windows (n, length + 1) spread evenly over a text (T,).

    Raises:
        ValueError: if the text is shorter than all of them.
    """
    if len(tokens) < n * (length + 1):
        raise ValueError(
            f"{len(tokens)} tokens are too few for {n} windows of {length}: raise corpus_bytes, "
            "or lower n_calibration, n_held_out or train_len"
        )
    starts = torch.linspace(0, len(tokens) - length - 1, n).long()
    return tokens[starts[:, None] + torch.arange(length + 1)]
