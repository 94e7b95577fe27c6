"""What one cell produced, whatever happened: the schema, its JSON form, and nothing else.

The schema is versioned and published as JSON Schema (harness/record.schema.json).
This is the only module that knows the keys of a record file.
"""

from dataclasses import field
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import Field

from harness.card import Average, Direction, Kind

Outcome = Literal["ok", "failed", "oom", "timeout", "crashed", "skipped"]
OUTCOMES: tuple[Outcome, ...] = ("ok", "failed", "oom", "timeout", "crashed", "skipped")

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


class RecordError(ValueError):
    """A file that is not a record of this schema."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Floor:
    """The least a timed piece of work can cost, by formulas and the machine's own ceilings."""

    flops: float
    bytes: float  # that must be moved once
    seconds: float  # the longer of the two at the ceilings
    mfu: float  # share of the ceiling of arithmetic that was reached
    bandwidth_share: float  # share of the ceiling of memory traffic
    impossible: bool  # faster than the floor: something was not done, or not timed


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Quantity:
    """One metric's value with its unit and, where it was sampled, the raw samples."""

    value: float | None  # average of the samples, or the one number; None where it does not apply
    unit: str
    better: Direction
    kind: Kind
    samples: list[float] = field(default_factory=list)  # raw, in the order taken
    low: float | None = None  # 95 % bootstrap interval of the value
    high: float | None = None
    average: Average = "median"
    generations: list[int] = field(default_factory=list)  # samples of each process; []: of one
    floor: Floor | None = None  # what the work needs at least; where the technique declares it


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Record:
    """One cell's row. Times are seconds, sizes bytes, moments ISO 8601 in UTC."""

    schema_version: Literal[1, 2] = 2  # 2 added optional fields only
    cell_id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    run: str
    suite: str
    technique: str
    options: dict[str, Any]
    setting: dict[str, Any]
    code: str
    world: int
    device: str
    command: str  # repeats this cell
    outcome: Outcome
    reason: str = ""  # one line; empty when ok
    log_tail: str = ""
    metrics: dict[str, Quantity] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)  # corpus hashes, peer versions, facts
    started: str
    wall_s: float
    measured_s: float | None = None  # inside `measure`; the rest of wall_s is the harness's
    cpu_s: float | None = None  # of the cell's processes
    peak_rss_bytes: int | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    load_before: list[float] = field(default_factory=list)  # 1, 5, 15 minutes
    load_after: list[float] = field(default_factory=list)
    relay: str = ""  # cells of one relay took turns, round by round; "": measured by itself
    conditions: dict[str, list[float]] = field(default_factory=dict)  # one value a timed round
    harness_cpu_share: float | None = None  # of one core, by the parent while rounds were timed

    @property
    def label(self) -> str:
        """A short line for reports: `suite technique key=value ...`."""
        axes = " ".join(f"{key}={value}" for key, value in self.setting.items())
        return f"{self.suite} {self.technique} {axes}".rstrip()


@cache
def _adapter() -> TypeAdapter[Record]:
    return TypeAdapter(Record)


def to_json(record: Record) -> bytes:
    """The record as indented UTF-8 JSON."""
    return _adapter().dump_json(record, indent=1)


def from_json(data: bytes) -> Record:
    """The record in `data`.

    Raises:
        RecordError: if it is damaged or of another schema version; says what is wrong.
    """
    try:
        return _adapter().validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise RecordError(f"{where}: {first['msg']}") from error


def json_schema() -> dict[str, Any]:
    """JSON Schema of a record file."""
    return _adapter().json_schema()
