"""The command line that repeats one cell, in Hydra's override grammar."""

import json
import re
import shlex

from harness.cell import Cell, Json

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./+-]*")  # words the grammar takes without quotes
_SPECIAL = {"null", "true", "false", "nan", "inf"}


def command_of(cell: Cell) -> str:
    """`llmatrix run suite=... technique=... axis=value ...`, ready for a shell.

    Every field is written out, so a changed default does not change what the command means.
    """
    values = {**cell.options, **cell.setting}
    words = [f"suite={cell.suite}", f"technique={cell.technique}"]
    words += [f"{key}={override(value)}" for key, value in sorted(values.items())]
    if cell.device != "cpu":
        words.append(f"device={cell.device}")
    return " ".join(["llmatrix", "run", *map(shlex.quote, words)])


def override(value: Json) -> str:
    """The value in Hydra's grammar; a list is one value, not a sweep."""
    if isinstance(value, list | tuple):
        return f"[{','.join(override(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{override(item)}" for key, item in value.items()) + "}"
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _SPECIAL:
        return value
    # A backslash is literal in a quoted value unless it stands before a quote.
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"'{escaped}'"
