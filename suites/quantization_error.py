"""How far do compressed layers stray from the layers they replaced, and the whole model with them?

The error of a layer is that of its output on what the original model reads, relative and squared;
SQNR is that of its weight. Both are one sample a layer, in the order of the layers, whose names
are in the notes. Divergence is the whole model's: KL of the next token for a decoder, 1 - cosine
for a sentence encoder. Bits are those that are stored, with scales, indices and outliers.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

from harness.card import Metric, Suite
from harness.instruments import Instruments, Samples
from impls.compression.interface import LayerError, layer_errors
from suites._subjects import SubjectSetting, subject

SUITE = Suite(
    title="Quantization error",
    question="What does a stored bit cost in error, layer by layer and for the whole model?",
    families=("compression",),
    baseline="compression/rtn",
    metrics=(
        Metric(
            name="output_error",
            unit="1",
            better="lower",
            kind="error",
            average="mean",
            summary="Squared error of a layer's output over its square, a sample a layer.",
        ),
        Metric(name="worst_output_error", unit="1", better="lower", kind="error"),
        Metric(
            name="sqnr_db",
            unit="dB",
            better="higher",
            kind="error",
            average="mean",
            summary="Signal over noise of a layer's weight, a sample a layer.",
        ),
        Metric(
            name="divergence",
            unit="1",
            better="lower",
            kind="error",
            average="mean",
            summary="KL of the next token in nats (decoder), or 1 - cosine (encoder).",
        ),
        Metric(
            name="bits_per_parameter",
            unit="bit",
            better="lower",
            kind="memory",
            summary="Stored bits of the compressed layers over their weights.",
        ),
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting(SubjectSetting):
    """Which model, and which of its layers."""


def measure(
    technique: Any, setting: Setting, instruments: Instruments
) -> dict[str, float | Samples | None]:
    """Compress once; compare layer by layer and as a whole."""
    given = subject(technique, setting, instruments)
    small = technique.compressed(given.model, given.calibration, layers=setting.only)
    with torch.inference_mode():
        errors = layer_errors(given.model, small, given.calibration)
        divergence = given.divergence(small)
    instruments.note(
        layers={name: [e.output_error, finite(e.sqnr_db)] for name, e in errors.items()}
    )
    outputs = [error.output_error for error in errors.values()]
    return {
        "output_error": outputs or None,
        "worst_output_error": max(outputs, default=None),
        "sqnr_db": [finite(error.sqnr_db) for error in errors.values()] or None,
        "divergence": divergence,
        "bits_per_parameter": bits_per_parameter(list(errors.values())),
    }


def finite(decibels: float) -> float:
    """Decibels of a weight; one that lost nothing counts as float32's own 150."""
    return decibels if math.isfinite(decibels) else 150.0


def bits_per_parameter(errors: list[LayerError]) -> float | None:
    """Stored bits over weights, of all layers together; None without any."""
    weights = sum(e.weights for e in errors)
    return sum(e.bits_per_parameter * e.weights for e in errors) / weights if weights else None
