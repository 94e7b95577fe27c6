"""What does a small language model make of text, in range and beyond the length it was trained on?

Every technique gets the same decoder, text, steps and seed. Loss is read on the last bytes of
held-out windows that end at the same places at every length, in one pass and through the cache.
Local text can be told from its last few bytes, so a planted pair of key and value, asked for at the
end, shows whether the rest of the window is used at all.

A position technique encodes, an attention technique replaces the attention of a decoder with
rotary positions, a context extension is applied to a decoder trained without it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.card import Card, Metric, Suite
from harness.instruments import Instruments, Samples
from suites.data.decoders import Lesson, LessonSetting, trained
from suites.data.readers import Reader, reader
from suites.data.reading import Exam, depths, flat, recall_accuracy

SUITE = Suite(
    title="Perplexity over length",
    question="How well does a small model read in range and beyond, and does it use what is far?",
    families=("positions", "attention", "context"),
    baseline="positions/rope",
    metrics=(
        Metric(
            name="bits_per_byte_1x", unit="bit/B", better="lower", kind="quality", average="mean"
        ),
        Metric(
            name="bits_per_byte_2x", unit="bit/B", better="lower", kind="quality", average="mean"
        ),
        Metric(
            name="bits_per_byte_4x", unit="bit/B", better="lower", kind="quality", average="mean"
        ),
        Metric(
            name="bits_per_byte_8x", unit="bit/B", better="lower", kind="quality", average="mean"
        ),
        Metric(
            name="cached_bits_per_byte_4x",
            unit="bit/B",
            better="lower",
            kind="quality",
            average="mean",
            summary="The same read token by token through the cache.",
        ),
        Metric(
            name="cached_gap_4x",
            unit="nat",
            better="lower",
            kind="error",
            summary="Largest difference of a loss between one pass and the cache.",
        ),
        Metric(name="recall_1x", unit="1", better="higher", kind="quality", average="mean"),
        Metric(name="recall_2x", unit="1", better="higher", kind="quality", average="mean"),
        Metric(name="recall_4x", unit="1", better="higher", kind="quality", average="mean"),
        Metric(name="train_loss", unit="nat", better="lower", kind="quality"),
        Metric(name="train_tokens_s", unit="tokens/s", better="higher", kind="timing"),
        Metric(name="n_parameters", unit="1", better="neither", kind="count"),
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting(LessonSetting):
    """What the decoder is trained on, and what it is read with."""

    n_windows: int = 96
    tail: int = 32  # tokens scored at the end of a window

    def __post_init__(self) -> None:
        LessonSetting.__post_init__(self)
        if not 1 <= self.tail <= self.train_len:
            raise ValueError(f"tail must be from 1 to train_len {self.train_len}, got {self.tail}")
        if self.n_windows < 1:
            raise ValueError(f"n_windows must be at least 1, got {self.n_windows}")


def applies(card: Card) -> str:
    """Why a technique is not measured: a peer computes what the technique it repeats computes."""
    return "a peer gives the same numbers: see parity and throughput" if card.peer_of else ""


def measure(
    technique: Any, setting: Setting, instruments: Instruments
) -> dict[str, float | Samples | None]:
    """Train once, read at four lengths, by pass and by cache, and recall at three."""
    lesson = Lesson.of(setting, instruments)
    pupil = trained(technique, lesson, instruments)
    exam = Exam(
        tokens=lesson.held_out,
        token_bytes=lesson.token_bytes,
        longest=8 * setting.train_len,
        n_windows=setting.n_windows,
        tail=setting.tail,
    )
    instruments.note(corpus=lesson.facts)
    found: dict[str, float | Samples | None] = {
        "train_loss": pupil.train_loss,
        "train_tokens_s": pupil.tokens_per_s,
        "n_parameters": pupil.model.n_parameters,
    }
    by_depth = {}
    for times in (1, 2, 4, 8):
        length = times * setting.train_len
        opened = reader(
            technique, pupil.model, train_len=setting.train_len, length=length, tail=setting.tail
        )
        with torch.inference_mode(), opened as read:
            losses, windows = exam.losses(read.logits, length)
            found[f"bits_per_byte_{times}x"] = exam.bits_per_byte(losses, windows)
            if times == 4:
                found |= _through_the_cache(read, exam, losses, length)
            if times < 8:
                recalled = setting.recall_share and recall_accuracy(
                    read.logits, exam, lesson.recall, length, setting.seed
                )
                found[f"recall_{times}x"] = flat(recalled) if recalled else None
                by_depth[f"{times}x"] = depths(recalled) if recalled else None
    instruments.note(recall_by_depth=by_depth)
    return found


def _through_the_cache(
    read: Reader, exam: Exam, whole: Tensor, length: int
) -> dict[str, float | Samples | None]:
    if read.cached_logits is None:
        return {"cached_bits_per_byte_4x": None, "cached_gap_4x": None}
    cached, windows = exam.losses(read.cached_logits, length)
    return {
        "cached_bits_per_byte_4x": exam.bits_per_byte(cached, windows),
        "cached_gap_4x": float((whole - cached).abs().max()),
    }
