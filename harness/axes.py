"""Which axes reach which dataclass, and the refusal of those that reach none."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from harness import catalogue
from harness.cell import Json
from harness.errors import UsageError, near
from harness.request import ROOT_KEYS, Block, Request


def techniques_of(block: Block) -> tuple[str, ...]:
    """Matched names that the suite applies to.

    Raises:
        UsageError: if none is of a family the suite was meant for.
    """
    suite = catalogue.suite(block.suite)
    matched = catalogue.match(block.technique)
    suited = tuple(n for n in matched if "*" in suite.families or n.split("/")[0] in suite.families)
    if not suited:
        raise UsageError(
            f"suite {block.suite!r} measures {', '.join(suite.families)}; "
            f"none of {', '.join(block.technique)} is of that family"
        )
    return suited


@cache
def known_axes(suite: str, technique: str) -> frozenset[str]:
    """Axes that reach this technique in this suite; the suite's alone if it cannot be imported."""
    reach = field_names(setting_of(suite))
    if catalogue.missing_packages(technique):
        return reach
    return reach | field_names(catalogue.load(technique))


@cache
def field_names(cls: Any) -> frozenset[str]:
    """The fields of a dataclass."""
    return frozenset(f.name for f in fields(cls))


def setting_of(suite: str) -> Any:
    """The dataclass of a suite's axes."""
    return catalogue.load_suite(suite).Setting


def check_axes(request: Request) -> None:
    """Every key must reach somebody: a block's own in that block, a chosen one in some block.

    Raises:
        UsageError: for a key that reaches nobody, with near misses, or a number that is not finite.
    """
    _refuse_infinite(request.chosen)
    everywhere: set[str] = set()
    for block in request.blocks:
        known, where = _reach(block), f"suite {block.suite!r}"
        everywhere |= known
        for point in (block.axes, *block.zip, *block.include):
            _refuse_infinite(point)
        _refuse_unknown(itertools.chain(block.axes, *block.zip), known, where)
        named = (*block.include, *(rule.when for rule in block.exclude))
        _refuse_unknown(itertools.chain(*named), known | {"technique"}, where)
    _refuse_unknown(request.chosen, everywhere, "this matrix")


def _reach(block: Block) -> set[str]:
    reach: set[str] = set(field_names(setting_of(block.suite)))
    further = catalogue.match(str(point["technique"]) for point in block.include)
    for technique in (*techniques_of(block), *further):
        reach |= known_axes(block.suite, technique)
    return reach


def _refuse_infinite(axes: Mapping[str, Json]) -> None:
    for key, value in axes.items():
        for number in _numbers(value):
            if not math.isfinite(number):
                raise UsageError(
                    f"{key}={number}: an axis needs finite numbers; quote it if a word"
                )


def _numbers(value: Json) -> Iterator[float]:
    """Floating-point numbers at any depth of a value."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, Mapping):
        yield from _numbers(list(value.values()))


def _refuse_unknown(keys: Iterable[str], known: Iterable[str], where: str) -> None:
    for key in keys:
        if key not in known:
            raise UsageError(
                f"{where} has no axis or option {key!r}{near(key, [*known, *ROOT_KEYS])} "
                f"(axes: {', '.join(sorted(known))})"
            )
