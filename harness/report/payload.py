"""What the page's script reads: every cell's details as one JSON document, cut to a size."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.card import Card
from harness.report import details
from harness.report.tables import Table, canonical

Payload = dict[str, Any]


def payload(tables: Sequence[Table], cards: Mapping[str, Card]) -> Payload:
    """`cells` by id, and the environments they share in `shared`."""
    environments: dict[str, int] = {}
    shared: list[Any] = []
    cells = {}
    for table in tables:
        for row in table.rows:
            record = row.record
            key = canonical(record.environment)
            if key not in environments:
                environments[key] = len(shared)
                shared.append(["Environment", details.environment(record)])
            found = details.cell(table, row, cards.get(record.technique))
            cells[record.cell_id] = found | {"shared": [environments[key]]}
    return {"shared": shared, "cells": cells}


def fitted(document: Payload, room: int) -> tuple[str, list[str]]:
    """The document as JSON of about `room` bytes at most, and what was left out for it."""
    text, left_out = as_json(document), []
    for what, drop in _DROPS:
        if len(text) <= room:
            break
        cells = {key: drop(cell) for key, cell in document["cells"].items()}
        document = document | {"cells": cells}
        text = as_json(document)
        left_out.append(what)
    if len(text) <= room:
        return text, left_out
    items = list(document["cells"].items())
    kept = int(0.9 * len(items) * room / len(text))
    left_out.append(f"and of {len(items) - kept:,} all details")
    return as_json(document | {"cells": dict(items[:kept])}), left_out


def as_json(document: Payload) -> str:
    """JSON in ASCII that no HTML parser can mistake for markup."""
    text = json.dumps(document, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _without_traces(cell: Payload) -> Payload:
    def bare(rows: Sequence[Payload]) -> list[Payload]:
        return [{key: value for key, value in row.items() if key != "trace"} for row in rows]

    return cell | {key: bare(cell[key]) for key in ("metrics", "conditions") if key in cell}


def _without(*keys: str) -> Callable[[Payload], Payload]:
    return lambda cell: {key: value for key, value in cell.items() if key not in keys}


def _without_lists(cell: Payload) -> Payload:
    return cell | {"lists": [one for one in cell["lists"] if one[0] == "Setting"]}


# What goes first where all of it is too much.
_DROPS: tuple[tuple[str, Callable[[Payload], Payload]], ...] = (
    ("the lines of their samples", _without_traces),
    ("their logs", _without("log")),
    ("their samples' quantiles", _without("metrics", "conditions")),
    ("their options and notes", _without_lists),
)
