"""Does a technique give what its canonical library gives, on random inputs?"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from harness import catalogue
from harness.card import Card, Metric, Suite
from harness.instruments import Instruments
from suites._packages import package_versions

SUITE = Suite(
    title="Parity",
    question="Does it give what the library one would otherwise use gives, on random inputs?",
    families=("*",),
    baseline="",
    metrics=(
        Metric(
            name="agreement",
            unit="1",
            better="higher",
            kind="quality",
            summary="Share of the compared outputs that agree with the oracle's.",
        ),
        Metric(name="compared", unit="1", better="neither", kind="count"),
        Metric(
            name="max_error",
            unit="1",
            better="lower",
            kind="error",
            summary="Largest difference; 0 where outputs are identical, as ids must be.",
        ),
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """Which random inputs; the family says what `size` counts."""

    size: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")


def applies(card: Card) -> str:
    """Why a technique is not compared: its oracle is no peer."""
    if "/peers/" in card.oracle:
        return ""
    return f"its oracle is {card.oracle!r}, no peer: the contract tests hold it to that"


def measure(technique: Any, setting: Setting, instruments: Instruments) -> dict[str, float]:
    """Compare with the peer the card names.

    Raises:
        ValueError: if the card names none.
    """
    oracle = catalogue.card(instruments.technique).oracle
    if "/peers/" not in oracle:
        raise ValueError(
            f"{instruments.technique} has oracle {oracle!r}, which is no peer: "
            "leave it out of suite parity or name a peer in its card"
        )
    family = instruments.technique.partition("/")[0]
    found = import_module(f"impls.{family}.interface").agreement(
        technique, catalogue.load(oracle)(), seed=setting.seed, size=setting.size
    )
    instruments.note(oracle=oracle, packages=package_versions(oracle))
    return {
        "agreement": found["agreeing"] / found["compared"],
        "compared": found["compared"],
        "max_error": found["max_error"],
    }
