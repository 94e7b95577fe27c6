"""What a timed work takes at the least, by formulas and the machine's ceilings: the roofline.

    floor = max(flops / most flops a second, bytes / most bytes a second)

`mfu` and `bandwidth_share` say how near a result came to either. A result well below the floor is
impossible: something was left out, answered from memory, put off, or not timed. How far below is
from trials on a shared machine: ceilings of arithmetic, measured over and over, stayed within 10 %
of each other; those of memory traffic doubled within a minute, with what the neighbours did. Before
a result is called impossible, its ceiling is measured a second time. Work whose least number of
steps no formula tells, as the look-ups and branches of a tokenizer, has no floor.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.artifacts import Artifacts
from harness.card import Suite
from harness.ceilings import Ceiling, CeilingError, Site, ceiling
from harness.record import Floor, Quantity, Record

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}  # in one unit of a metric that can have a floor
DTYPES = ("float64", "float32", "bfloat16", "float16")

ARITHMETIC_SLACK = 0.8  # share of the floor below which a result is impossible
TRAFFIC_SLACK = 0.5
BEYOND_CACHE = 2  # bytes that fit so many last-level caches may partly stay there: no floor
_SHORTEST_S = 1e-9  # what a sample of nothing counts as


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What one sample of a metric must compute and move, by formulas; lower bounds."""

    flops: float = 0.0  # a multiply-add counts as two
    bytes: float = 0.0  # read and written at least once
    dtype: str = "float32"  # of the arithmetic

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if min(self.flops, self.bytes) < 0 or not self.flops + self.bytes > 0:
            raise ValueError(
                f"flops and bytes must be at least 0, one of them above it, "
                f"got {self.flops} and {self.bytes}"
            )


def check(needs: Mapping[str, Needs], suite: Suite) -> None:
    """That each belongs to a time.

    Raises:
        ValueError: naming the metric that is none of the suite's, or no time.
    """
    units = {metric.name: metric.unit for metric in suite.metrics}
    for name in needs:
        if units.get(name) not in SECONDS:
            times = ", ".join(n for n, unit in units.items() if unit in SECONDS) or "none"
            raise ValueError(f"{name} is no time of this suite to give needs to; times: {times}")


def with_floors(
    record: Record,
    needs: Mapping[str, Needs],
    *,
    artifacts: Artifacts,
    cores: Sequence[int],
) -> Record:
    """The record with the floors of its times, by the ceilings of the cores it ran on.

    Where a ceiling cannot be measured there is a note instead.
    """
    threads = max(1, len(cores) // record.world)
    site = Site(device=record.device, threads=threads, cores=tuple(cores[:threads]))

    def ceiling_of(dtype: str, looks: int) -> Ceiling:
        return ceiling(artifacts, site, dtype, looks=looks)

    try:
        found = floors(needs, record.metrics, ceiling_of)
    except CeilingError as error:
        return replace(record, notes={**record.notes, "floors": str(error)})
    metrics = {
        name: replace(quantity, floor=found[name]) if name in found else quantity
        for name, quantity in record.metrics.items()
    }
    return replace(record, metrics=metrics)


def floors(
    needs: Mapping[str, Needs],
    quantities: Mapping[str, Quantity],
    ceiling_of: Callable[[str, int], Ceiling],
) -> dict[str, Floor]:
    """The floor of each metric that has needs and a value.

    Args:
        needs: by metric.
        quantities: by metric, as measured.
        ceiling_of: the best of so many looks at the ceiling of a type; two only in doubt.
    """
    found = {}
    for name, need in needs.items():
        quantity = quantities[name]
        taken = quantity.samples or ([] if quantity.value is None else [quantity.value])
        if not taken:
            continue
        seconds = np.array(taken) * SECONDS[quantity.unit]
        found[name] = floor(seconds, need, ceiling_of(need.dtype, 1))
        if found[name].impossible:
            found[name] = floor(seconds, need, ceiling_of(need.dtype, 2))
    return found


def floor(seconds: np.ndarray, needs: Needs, most: Ceiling) -> Floor:
    """The floor of one metric, and how its samples compare.

    The shares are those of the median; impossible is judged by the 25 % quantile.
    """
    low, middle = np.maximum(_SHORTEST_S, np.quantile(seconds, (0.25, 0.5)))
    computing, moving = needs.flops / most.flops, needs.bytes / most.bandwidth
    travelling = moving if needs.bytes > BEYOND_CACHE * most.cache_bytes else 0.0
    least = max(ARITHMETIC_SLACK * computing, TRAFFIC_SLACK * travelling)
    return Floor(
        flops=float(needs.flops),
        bytes=float(needs.bytes),
        seconds=max(computing, travelling),
        mfu=float(computing / middle),
        bandwidth_share=float(moving / middle),
        impossible=bool(low < least),
    )
