"""README's generated blocks: the catalogue from the cards, the headline results from records.

    python -m harness.docs            rewrite them
    python -m harness.docs --check    exit 1 if README is not current

A block stands between `<!-- generated: NAME -->` and `<!-- end: NAME -->`.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from harness import catalogue, experiments
from harness.record import Quantity, Record
from harness.store import Store

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "results" / "reference"
EXPERIMENTS = ROOT / "conf" / "experiment"


def blocks() -> dict[str, str]:
    """Text of every generated block by its name."""
    return {
        "catalogue": _catalogue(),
        "suites": _suites(),
        "experiments": _experiments(),
        **{f"results {name}": _results(name) for name in reference_runs()},
    }


def reference_runs() -> tuple[str, ...]:
    """Names of the experiments whose records are committed."""
    return tuple(sorted(path.name for path in REFERENCE.iterdir() if (path / "cells").is_dir()))


def current(readme: str) -> str:
    """The README with every block as it should be.

    Raises:
        ValueError: if the README lacks a block.
    """
    for name, text in blocks().items():
        first, last = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
        before, begin, rest = readme.partition(first)
        _, end, after = rest.partition(last)
        if not (begin and end):
            raise ValueError(f"README.md has no block {first.strip()} ... {last}")
        readme = f"{before}{begin}{text}\n{end}{after}"
    return readme


def _catalogue() -> str:
    parts = []
    for family in catalogue.families():
        names = [name for name in catalogue.techniques() if name.startswith(f"{family}/")]
        rows = [(f"`{n}`", c.cls, c.title, c.paper, c.summary) for n in names
                if (c := catalogue.card(n))]  # fmt: skip
        headers = ["technique", "class", "title", "source", "in a sentence"]
        peers = [f"`{p}`" for p in catalogue.peers() if p.startswith(f"{family}/")]
        parts.append(
            f"**{family}** ({len(names)})\n\n{_table(rows, headers)}\n\n"
            + (f"Peers, libraries behind the same interface: {', '.join(peers)}." if peers else "")
        )
    return "\n\n".join(parts)


def _suites() -> str:
    rows = [
        (f"`{name}`", (suite := catalogue.suite(name)).question, len(suite.metrics))
        for name in catalogue.suites()
    ]
    return _table(rows, ["suite", "question", "metrics"])


def _experiments() -> str:
    rows = [(f"`{name}`", row["title"]) for name, row in experiments.titles().items()]
    return _table(rows, ["experiment", "what it asks"])


def _results(name: str) -> str:
    """The tables that the experiment's `headline` asks for, from its committed reference run."""
    records, bad = Store(REFERENCE / name).records()
    if bad:
        raise ValueError(f"reference records that cannot be read: {', '.join(map(str, bad))}")
    if not records:
        return "No reference run is committed yet."
    environment = records[0].environment
    told = (
        f"{len(records)} cells of `experiment={name}`, {records[0].started[:10]}, "
        f"{environment.get('cpu')}, {environment.get('usable_cores')} cores, "
        f"Python {environment.get('python')}, commit {str(environment.get('commit'))[:10]}. "
        "Speeds are of this shared machine; ratios were taken in turns and hold better."
    )
    document = yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text(encoding="utf-8"))
    tables = [_headline(spec, records) for spec in document["headline"]]
    return "\n\n".join([told, *tables])


def _headline(spec: Mapping[str, Any], records: Sequence[Record]) -> str:
    """One table: a row for every technique and its chosen options, averages over the seeds."""
    rows: dict[str, dict[str, list[Quantity]]] = {}
    for record in records:
        chosen = {**record.setting, **record.options}
        where = spec.get("where", {}).items()
        if not catalogue.glob(record.technique, spec["technique"]):
            continue
        if any(chosen.get(key, value) != value for key, value in where):
            continue
        told = [f"{key}={chosen[key]}" for key in spec.get("label", ()) if key in chosen]
        row = rows.setdefault(" ".join([f"`{record.technique}`", *told]), {})
        for metric in spec["metrics"]:
            if record.suite == spec.get("suite", record.suite) and metric in record.metrics:
                row.setdefault(metric, []).append(record.metrics[metric])
    lines = [
        (name, *(_told(row.get(metric, ()), spec) for metric in spec["metrics"]))
        for name, row in sorted(rows.items(), key=lambda item: item[0].replace("`", ""))
        if row
    ]
    return _table(lines, ["technique", *spec["metrics"]])


def _told(quantities: Sequence[Quantity], spec: Mapping[str, Any]) -> str:
    """The mean of several, with their range; of one, its value, with its interval if asked for."""
    values = [q.value for q in quantities if q.value is not None]
    if not values:
        return ""
    told = f"{sum(values) / len(values):.3g}"
    if len(values) > 1:
        return f"{told} [{min(values):.3g}, {max(values):.3g}]"
    low, high = quantities[0].low, quantities[0].high
    return f"{told} [{low:.3g}, {high:.3g}]" if spec.get("intervals") and low is not None else told


def _table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def main() -> int:
    """Rewrite README, or say whether it is current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if stale")
    options = parser.parse_args()
    path = ROOT / "README.md"
    written = path.read_text(encoding="utf-8")
    wanted = current(written)
    if options.check and written != wanted:
        print("README.md is not current: make docs", file=sys.stderr)
        return 1
    if not options.check:
        path.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
