"""What does it cost to compress a model: seconds and peak memory, calibration included?

Seconds are of one whole call on the model in memory; peak memory is the growth of this process
during such a call, above the model itself.
"""

from dataclasses import dataclass
from typing import Any

from harness.card import Metric, Suite
from harness.instruments import Instruments, Samples
from impls.compression.interface import model_bytes
from suites._subjects import SubjectSetting, subject

SUITE = Suite(
    title="Cost of compression",
    question="How long does compressing take, and how much memory?",
    families=("compression",),
    baseline="compression/rtn",
    timing=True,
    metrics=(
        Metric(name="compress_s", unit="s", better="lower", kind="timing"),
        Metric(
            name="peak_bytes",
            unit="B",
            better="lower",
            kind="memory",
            summary="Growth of resident memory while compressing.",
        ),
        Metric(
            name="peak_over_model",
            unit="1",
            better="lower",
            kind="memory",
            summary="The same over the bytes of the model.",
        ),
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting(SubjectSetting):
    """Which model, and how often it is compressed."""

    repeats: int = 3

    def __post_init__(self) -> None:
        SubjectSetting.__post_init__(self)
        if self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {self.repeats}")


def measure(
    technique: Any, setting: Setting, instruments: Instruments
) -> dict[str, float | Samples | None]:
    """Compress for the memory, then for the time."""
    given = subject(technique, setting, instruments)

    def compress() -> object:
        return technique.compressed(given.model, given.calibration, layers=setting.only)

    with instruments.peak_memory() as reading:
        compress()
    (seconds,) = instruments.interleave(compress, rounds=setting.repeats, warmup=0)
    return {
        "compress_s": seconds,
        "peak_bytes": reading.growth_bytes,
        "peak_over_model": reading.growth_bytes / model_bytes(given.model),
    }
