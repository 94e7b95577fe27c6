"""One technique x one suite x one setting, fully resolved, and the hash that names it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Any  # what the json module reads and writes
Options = Mapping[str, Json]

IDENTITY_VERSION = 1  # raise it when the meaning of a cell id changes


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One thing to measure.

    The id hashes all that could change the result: technique and suite with their options and the
    digest of their source. Where and how it runs (launcher, workers, limits) is left out.
    """

    suite: str
    technique: str
    options: Options  # the technique's fields
    setting: Options  # the suite's axes
    code: str  # digest of the sources the result depends on
    world: int = 1  # processes needed
    device: str = "cpu"
    timing: bool = False  # never beside another cell on the same cores
    cell_id: str = field(init=False)

    def __post_init__(self) -> None:
        identity = [
            IDENTITY_VERSION, self.suite, self.technique, self.options, self.setting, self.code,
            self.world, self.device,
        ]  # fmt: skip
        object.__setattr__(self, "cell_id", digest(identity))

    @property
    def label(self) -> str:
        """A short line for progress and reports: `suite technique key=value ...`."""
        axes = " ".join(f"{key}={value}" for key, value in self.setting.items())
        return f"{self.suite} {self.technique} {axes}".rstrip()


def digest(value: Json) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
