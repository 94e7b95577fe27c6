"""Names of techniques, peers, suites or experiments.

Reads headers only: neither torch nor Hydra is imported.
"""

import argparse
import json
from dataclasses import asdict
from typing import Any

from harness import catalogue, experiments
from harness.errors import UsageError, near


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("what", choices=list(_ROWS), help="which names to list")
    parser.add_argument("pattern", nargs="?", help="only names that match, e.g. 'tokenizers/*'")
    parser.add_argument("--json", action="store_true", help="all metadata, as JSON")


def main(options: argparse.Namespace) -> int:
    """Print the names."""
    rows = _ROWS[options.what]()
    if options.pattern:
        chosen = {n: row for n, row in rows.items() if catalogue.glob(n, options.pattern)}
        if not chosen:
            known = near(options.pattern, rows)
            raise UsageError(f"none of the {options.what} matches {options.pattern!r}{known}")
        rows = chosen
    if options.json:
        print(json.dumps([{"name": name, **row} for name, row in rows.items()], indent=1))
        return 0
    width = max(map(len, rows), default=0)
    for name, row in rows.items():
        print(f"{name:<{width}}  {row.get('summary') or row.get('question') or row['title']}")
    return 0


def _cards(names: Any) -> dict[str, dict[str, Any]]:
    return {
        name: {**asdict(catalogue.card(name)), "missing": list(catalogue.missing_packages(name))}
        for name in names
    }


_ROWS = {
    "techniques": lambda: _cards(catalogue.techniques()),
    "peers": lambda: _cards(catalogue.peers()),
    "suites": lambda: {name: asdict(catalogue.suite(name)) for name in catalogue.suites()},
    "experiments": experiments.titles,
}
