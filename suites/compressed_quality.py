"""Is a compressed model still any good, and how many bytes does it take?

A decoder is read in bits per byte of held-out text, beside the original on the same windows. A
sentence encoder embeds the first sentences of docstrings and what follows them: how near its
embeddings are to the original's, whether it ranks passages alike, and whether a query's own passage
comes first. Bytes are those of the whole model, embeddings and head included.
"""

from dataclasses import dataclass
from typing import Any

import torch

from harness.card import Metric, Suite
from harness.instruments import Instruments, Samples
from impls.compression.interface import model_bytes
from suites._subjects import SubjectSetting, subject

SUITE = Suite(
    title="Quality of compressed models",
    question="What is left of a model's quality, and of its bytes?",
    families=("compression",),
    baseline="compression/rtn",
    metrics=(
        Metric(name="bits_per_byte", unit="bit/B", better="lower", kind="quality", average="mean"),
        Metric(
            name="excess_bits_per_byte",
            unit="bit/B",
            better="lower",
            kind="quality",
            average="mean",
            summary="Above the original's on the same windows.",
        ),
        Metric(
            name="cosine",
            unit="1",
            better="higher",
            kind="quality",
            average="mean",
            summary="Of each embedding to the original's.",
        ),
        Metric(
            name="ranking_agreement",
            unit="1",
            better="higher",
            kind="quality",
            average="mean",
            summary="Share of a query's ten nearest passages that stay among them.",
        ),
        Metric(
            name="found_first",
            unit="1",
            better="higher",
            kind="quality",
            average="mean",
            summary="Queries whose own passage is the nearest.",
        ),
        Metric(name="model_bytes", unit="B", better="lower", kind="memory"),
        Metric(
            name="size_ratio",
            unit="1",
            better="lower",
            kind="memory",
            summary="Bytes of the whole model over the original's.",
        ),
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting(SubjectSetting):
    """Which model, and which of its layers."""


def measure(
    technique: Any, setting: Setting, instruments: Instruments
) -> dict[str, float | Samples | None]:
    """Compress once and read."""
    given = subject(technique, setting, instruments)
    small = technique.compressed(given.model, given.calibration, layers=setting.only)
    with torch.inference_mode():
        judged = given.quality(small)
    n_bytes = model_bytes(small)
    names = {metric.name for metric in SUITE.metrics if metric.kind == "quality"}
    return {
        **dict.fromkeys(names),
        **judged,
        "model_bytes": n_bytes,
        "size_ratio": n_bytes / model_bytes(given.model),
    }
