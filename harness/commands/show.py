"""What one technique, peer, suite or experiment is, and the command that runs it."""

import argparse
from dataclasses import asdict

from harness import catalogue, experiments
from harness.errors import UsageError, near


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("name", help="e.g. tokenizers/byte_bpe, tokenization, quick")


def main(options: argparse.Namespace) -> int:
    """Print the header and the module's own description."""
    name = options.name
    if name in experiments.titles():
        print(f"{name}: {experiments.titles()[name]['title']}\n\nllmatrix run experiment={name}")
    elif name in catalogue.suites():
        _print_suite(name)
    elif catalogue.known(name):
        _print_technique(name)
    else:
        all_names = [*experiments.titles(), *catalogue.suites(), *catalogue.techniques()]
        all_names += catalogue.peers()
        raise UsageError(f"nothing is called {name!r}{near(name, all_names)}")
    return 0


def _print_technique(name: str) -> None:
    card = catalogue.card(name)
    family = name.partition("/")[0]
    suites = [s for s in catalogue.suites() if {family, "*"} & set(catalogue.suite(s).families)]
    print(f"{name}: {card.title} ({card.paper}, {card.year})\n\n{card.summary}\n")
    rows = {key: value for key, value in asdict(card).items() if key not in _SHOWN and value}
    _print_rows(rows | {"peers": ", ".join(catalogue.peers_of(name))})
    print(f"\nfrom {catalogue.source(name).module} import {card.cls}")
    if suites:
        print(f"llmatrix run suite={','.join(suites)} technique={name}")


def _print_suite(name: str) -> None:
    suite = catalogue.suite(name)
    print(f"{name}: {suite.title}\n\n{suite.question}\n")
    _print_rows({"families": ", ".join(suite.families), "baseline": suite.baseline})
    print("\nmetrics")
    for metric in suite.metrics:
        print(f"  {metric.name:<24} {metric.unit:<12} {metric.better:<8} {metric.summary}")
    print(f"\nllmatrix run suite={name} technique='{suite.families[0]}/*'")


def _print_rows(rows: dict[str, object]) -> None:
    for key, value in rows.items():
        if value:
            print(f"  {key:<10} {', '.join(value) if isinstance(value, tuple) else value}")


_SHOWN = ("title", "paper", "year", "summary")
