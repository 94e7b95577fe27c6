"""What is compressed: a decoder trained here, MiniLM, or a model of the hub. T tokens."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.instruments import Instruments
from impls.compression.interface import inject_outliers
from suites._judges import Sentences, Subject, Windows
from suites.data import corpus
from suites.data.decoders import Lesson, LessonSetting, trained
from suites.data.pretrained import CausalModel, SentenceModel, from_hub, minilm


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


def subject(technique: Any, setting: SubjectSetting, instruments: Instruments) -> Subject:
    """The model of a setting, with outliers if asked for."""
    if setting.model == "decoder":
        found: Subject = _trained_here(technique, setting, instruments)
    else:
        name = setting.model.removeprefix("hf:")
        loaded = minilm() if setting.model == "minilm" else from_hub(name)
        found = (
            Sentences(loaded, setting.n_calibration, setting.n_held_out)
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
