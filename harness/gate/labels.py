"""Names of cells: short ones for people, whole and unique ones for machines."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from harness.command import override
from harness.record import Record


def short_labels(records: Sequence[Record]) -> list[str]:
    """Technique with the axes and options that differ among the records; suite where several."""
    several = len({record.suite for record in records}) > 1
    axes = _varying((record.suite, record.setting) for record in records)
    options = _varying(((record.suite, record.technique), record.options) for record in records)
    return [
        " ".join(
            [
                *([record.suite] if several else []),
                record.technique,
                *_words(record.setting, axes[record.suite]),
                *_words(record.options, options[record.suite, record.technique]),
            ]
        )
        for record in records
    ]


def whole_label(record: Record) -> str:
    """Everything that was chosen for a cell, the same from run to run."""
    chosen = {**record.setting, **record.options}
    return " ".join([record.suite, record.technique, *_words(chosen, chosen)])


def _varying(pairs: Iterable[tuple[Hashable, Mapping[str, Any]]]) -> dict[Hashable, list[str]]:
    """Keys with more than one value, by group."""
    values: dict[Hashable, dict[str, set[str]]] = {}
    for group, mapping in pairs:
        found = values.setdefault(group, {})
        for key, value in mapping.items():
            found.setdefault(key, set()).add(override(value))
    return {
        group: [key for key, seen in found.items() if len(seen) > 1]
        for group, found in values.items()
    }


def _words(mapping: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    return [f"{key}={override(mapping[key])}" for key in keys if key in mapping]
