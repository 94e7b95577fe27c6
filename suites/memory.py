"""How much memory does attention need over the length, and how much does a decoded token keep?

Peak is the growth of resident memory during one pass, inputs not counted, at a quarter, half and
all of the length; the exponent between the last two says linear or quadratic. State bytes are what
the decoding state holds, beside the technique's own formula.
"""

from dataclasses import dataclass
from typing import Any

import torch

from harness.card import Metric, Suite
from harness.instruments import Instruments
from impls.attention.interface import Work
from suites._attention import DTYPES, decoding, shape_of, sides, work_of
from suites._scaling import slope

SUITE = Suite(
    title="Attention memory",
    question="How much memory does it need over the length, in a pass and for each decoded token?",
    families=("attention",),
    baseline="attention/full",
    metrics=(
        Metric(name="forward_peak_bytes", unit="B", better="lower", kind="memory"),
        Metric(name="training_peak_bytes", unit="B", better="lower", kind="memory"),
        Metric(
            name="peak_slope",
            unit="1",
            better="lower",
            kind="memory",
            summary="Exponent of the training peak over the length: 1 linear, 2 quadratic.",
        ),
        Metric(name="state_bytes", unit="B", better="lower", kind="memory"),
        Metric(
            name="state_bytes_per_token",
            unit="B",
            better="lower",
            kind="memory",
            summary="By how much one more token lets the decoding state grow, measured.",
        ),
        Metric(
            name="state_bytes_formula",
            unit="B",
            better="lower",
            kind="memory",
            summary="The same by the technique's formula.",
        ),
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One size of attention."""

    n_tokens: int = 4096
    n_heads: int = 8
    d_head: int = 64
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_tokens < 512:
            raise ValueError(f"n_tokens must be at least 512 to be seen, got {self.n_tokens}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if min(self.n_heads, self.d_head) < 1:
            raise ValueError("n_heads and d_head must be at least 1")


def measure(technique: Any, setting: Setting, instruments: Instruments) -> dict[str, float | None]:
    """One pass at three lengths, then a decoding state."""
    lengths = [setting.n_tokens // part for part in (4, 2, 1)]
    peaks = [_peaks(technique, setting, n, instruments) for n in lengths]
    training = [peak for _, peak in peaks if peak]
    states = [_state_bytes(technique, setting, n) for n in lengths[-2:]]
    shape = shape_of(_work(setting, setting.n_tokens))
    instruments.note(lengths=lengths, training_peak_bytes=training, state_bytes=states)
    return {
        "forward_peak_bytes": peaks[-1][0],
        "training_peak_bytes": peaks[-1][1],
        "peak_slope": slope(lengths, training) if len(training) == len(lengths) else None,
        "state_bytes": states[-1],
        "state_bytes_per_token": (states[1] - states[0]) / (lengths[2] - lengths[1]),
        "state_bytes_formula": technique.cache_bytes_per_token(
            shape, DTYPES[setting.dtype].itemsize
        ),
    }


def _peaks(
    technique: Any, setting: Setting, n: int, instruments: Instruments
) -> tuple[int, int | None]:
    """Growth during a forward pass, and during a forward and a backward pass."""
    side = sides(technique, work_of(technique, _work(setting, n)), seed=setting.seed)[0]
    side.forward()  # what is built once (layouts, compiled kernels) belongs to no pass
    with instruments.peak_memory() as forward:
        side.forward()
    if not technique.capabilities.backward:
        return forward.growth_bytes, None
    with instruments.peak_memory() as training:
        side.backward()()
    return forward.growth_bytes, training.growth_bytes


def _state_bytes(technique: Any, setting: Setting, n: int) -> int:
    dtype = DTYPES[setting.dtype]
    shape = shape_of(_work(setting, setting.n_tokens))
    layer = technique.build(shape).to(dtype)
    state, _ = decoding(layer, torch.randn(1, n, shape.d_model, dtype=dtype))
    return int(state.nbytes)


def _work(setting: Setting, n: int) -> Work:
    return Work(
        n_heads=setting.n_heads, n_kv_heads=setting.n_heads, n_q=n, n_k=n, d_head=setting.d_head,
        itemsize=DTYPES[setting.dtype].itemsize,
    )  # fmt: skip
