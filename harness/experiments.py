"""Names and titles of the committed experiments, read without a YAML parser.

The front door lists them in milliseconds, so it reads the one line `title: ...` of each file; a
test holds it equal to what Hydra composes.
"""

import importlib.util
import re
from pathlib import Path

_TITLE = re.compile(r"^title:\s*(?P<title>.+?)\s*$", re.MULTILINE)


def titles() -> dict[str, dict[str, str]]:
    """Title of each experiment by name."""
    found = {}
    for path in sorted(_folder().glob("*.yaml")):
        line = _TITLE.search(path.read_text(encoding="utf-8"))
        found[path.stem] = {"title": line["title"].strip("\"'") if line else ""}
    return found


def _folder() -> Path:
    spec = importlib.util.find_spec("conf")
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places or ["conf"]))) / "experiment"
