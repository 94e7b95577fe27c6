"""What a person asks for: blocks of the matrix, each one suite x technique patterns x axes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from harness.cell import Json, Options

Point = Mapping[str, Json]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """Leaves out the points that match `when`: a technique pattern and values of axes."""

    when: Options
    reason: str

    def __post_init__(self) -> None:
        if not self.reason:
            raise ValueError(f"exclude: {dict(self.when)} needs a reason")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One suite, the techniques it measures, and the points on its axes."""

    suite: str
    technique: tuple[str, ...]
    axes: Mapping[str, tuple[Json, ...]] = field(default_factory=dict)
    zip: tuple[Point, ...] = ()  # points taken together instead of as a product
    exclude: tuple[Rule, ...] = ()
    include: tuple[Point, ...] = ()  # further points, each with its `technique`

    def __post_init__(self) -> None:
        for point in self.include:
            if "technique" not in point:
                raise ValueError(f"include: {dict(point)} needs a technique pattern")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """All that a person asked for."""

    title: str
    blocks: tuple[Block, ...]
    chosen: Mapping[str, tuple[Json, ...]] = field(default_factory=dict)  # axes of every block
    device: Literal["cpu", "cuda"] = "cpu"
    elsewhere: bool = False  # cells run on other machines: nobody knows their devices here


# What `conf/config.yaml` holds beside the matrix; listed for near misses, held equal by a test.
ROOT_KEYS: Sequence[str] = (
    "experiment", "suite", "technique", "machine", "run", "retry", "workers", "shards", "device",
    "generations", "ranks", "time_limit_s", "memory_limit_gb", "results", "reports", "title",
)  # fmt: skip
