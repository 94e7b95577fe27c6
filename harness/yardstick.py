"""A piece of work of known size, which the measurement measures itself with.

One call does `parts` equal parts on data that stays in the cache, so a slowdown of 5 % is 105 parts
instead of 100: real work, not a changed number. `vector` runs on one core, `matmul` on all that
BLAS may use.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from harness.card import Metric, Suite
from harness.cell import Cell
from harness.instruments.clock import Clock

NAME = "yardstick"
PARTS = 100
_VECTOR = 16 * 1024  # float64: a part takes some 50 us
_MATRIX = 128

SUITE = Suite(
    title="Yardstick",
    question="How long does a piece of work of known size take?",
    families=(),
    baseline="",
    timing=True,
    metrics=(Metric(name="call_ms", unit="ms", better="lower", kind="timing"),),
)


def cell(*, parts: int, rounds: int, kind: str = "vector", name: str = "") -> Cell:
    """The cell of a yardstick; `name` tells equal ones apart."""
    return Cell(
        suite=NAME,
        technique=f"{NAME}/{kind}",
        options={"parts": parts, "name": name},
        setting={"rounds": rounds},
        code=NAME,
        timing=True,
    )


def measure(cell: Mapping[str, Any], clock: Clock) -> dict[str, list[float]]:
    """Milliseconds of each call, the rounds taken in turns with other yardsticks."""
    kind, parts = cell["technique"].rpartition("/")[2], cell["options"]["parts"]
    part = {"vector": _vector, "matmul": _matmul}[kind]()

    def work() -> None:
        for _ in range(parts):
            part()

    (seconds,) = clock.interleave([work], rounds=cell["setting"]["rounds"], warmup=3, seed=0)
    return {"call_ms": [1000 * sample for sample in seconds]}


def _vector() -> Callable[[], object]:
    x, y = np.linspace(1.0, 2.0, _VECTOR), np.empty(_VECTOR)
    return lambda: np.sqrt(x, out=y)


def _matmul() -> Callable[[], object]:
    x, y = np.full((_MATRIX, _MATRIX), 0.5), np.empty((_MATRIX, _MATRIX))
    return lambda: np.matmul(x, x, out=y)
