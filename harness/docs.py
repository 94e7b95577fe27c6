"""README's generated blocks: the catalogue from the cards, the headline results from records.

    python -m harness.docs            rewrite them
    python -m harness.docs --check    exit 1 if README is not current

A block stands between `<!-- generated: NAME -->` and `<!-- end: NAME -->`.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from harness import catalogue, experiments
from harness.record import Quantity, Record
from harness.store import Store

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "results" / "reference" / "quick"


def blocks() -> dict[str, str]:
    """Text of every generated block by its name."""
    return {
        "catalogue": _catalogue(),
        "suites": _suites(),
        "experiments": _experiments(),
        "results": _results(Store(REFERENCE)),
    }


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
            f"Peers, the libraries they are checked against: {', '.join(peers)}."
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


def _results(store: Store) -> str:
    records, bad = store.records()
    if bad:
        raise ValueError(f"reference records that cannot be read: {', '.join(map(str, bad))}")
    if not records:
        return "No reference run is committed yet."
    environment = records[0].environment
    told = (
        f"{len(records)} cells of `experiment=quick`, {records[0].started[:10]}, "
        f"{environment.get('cpu')}, {environment.get('usable_cores')} cores, "
        f"Python {environment.get('python')}, commit {str(environment.get('commit'))[:10]}. "
        "Speeds are of this shared machine; ratios were taken in turns and hold better."
    )
    return f"{told}\n\n{_own_table(records)}\n\n{_peer_table(records)}"


_OWN = {
    "tokenization": ("bytes_per_token", "renyi_efficiency", "round_trip_rate"),
    "tokenizer_throughput": ("train_mb_s", "cold_mb_s", "warm_mb_s"),
    "parity": ("agreement",),
}
_RACE = ("ours_over_peer_warm", "ours_over_peer_cold", "ours_over_peer_train", "ids_agree")


def _own_table(records: Sequence[Record]) -> str:
    """Every technique on English: what its tokens cost, how fast, and parity with its oracle."""
    english = [r for r in records if r.setting.get("data", "english") == "english"]
    by_cell = {(record.suite, record.technique): record for record in english}
    rows = []
    for name in sorted({r.technique for r in english if "/peers/" not in r.technique}):
        row = [f"`{name}`"]
        for suite, metrics in _OWN.items():
            found = by_cell.get((suite, name))
            row += [_told(found.metrics if found else {}, metric) for metric in metrics]
        rows.append(row)
    headers = ["technique", *(metric for metrics in _OWN.values() for metric in metrics)]
    return _table(rows, headers)


def _peer_table(records: Sequence[Record]) -> str:
    """Every peer: our speed over its speed on the same vocabulary and text, in turns."""
    rows = [
        (f"`{r.technique}`", *(_told(r.metrics, metric, interval=True) for metric in _RACE))
        for r in sorted(records, key=lambda record: record.technique)
        if r.suite == "tokenizer_throughput" and "/peers/" in r.technique
    ]
    return _table(rows, ["peer", *_RACE])


def _told(metrics: Mapping[str, Quantity], name: str, *, interval: bool = False) -> str:
    quantity = metrics.get(name)
    if quantity is None or quantity.value is None:
        return ""
    told = f"{quantity.value:.3g}"
    if interval and quantity.low is not None:
        told += f" [{quantity.low:.3g}, {quantity.high:.3g}]"
    return told


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
