"""The literal headers of techniques and suites, read from source without importing it.

A technique file carries `CARD = Card(...)`, a suite file `SUITE = Suite(...)`; both hold literals
only (a suite also nests `Metric(...)`), so listing hundreds of them needs neither torch nor any
optional package. This module needs the standard library alone.
"""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from harness.errors import UsageError

Direction = Literal["higher", "lower", "neither"]
Kind = Literal["timing", "memory", "quality", "count", "error"]
Average = Literal["median", "mean"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """Who a technique is: everything a list, a plan or a report needs before importing it."""

    cls: str  # the class the file exports, the name its paper gave it
    title: str
    paper: str  # arXiv id, DOI, or where it is defined
    year: int
    summary: str  # one sentence
    packages: tuple[str, ...] = ()  # top-level imports beyond the base installation
    device: str = "any"  # "any", "cuda", "cuda>=9.0"
    world: int = 1  # processes needed
    oracle: str = ""  # the peer's catalogue name, or the identity it must satisfy
    exact: bool = True  # equal up to rounding; False: the deviation is itself a result
    peer_of: tuple[str, ...] = ()  # for a peer: the techniques whose work this library repeats


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One quantity a suite reports."""

    name: str
    unit: str
    better: Direction
    kind: Kind
    summary: str = ""
    average: Average = "median"  # of the samples; a loss or a rate is a mean


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """What a suite asks, of whom, and in which units it answers."""

    title: str
    question: str
    families: tuple[str, ...]  # families it applies to; "*" for every family
    baseline: str  # catalogue name all ratios refer to; "" where a ratio has no meaning
    metrics: tuple[Metric, ...]
    timing: bool = False  # its cells never share cores with another cell


Header = TypeVar("Header", Card, Suite)


class HeaderError(UsageError):
    """A header that is missing or not literal; the message names file, line and remedy."""


def read_card(path: Path) -> Card:
    """The `CARD` of a technique file.

    Raises:
        HeaderError: if there is none or it holds anything but literals.
    """
    return _read(path, "CARD", Card)


def read_suite(path: Path) -> Suite:
    """The `SUITE` of a suite file.

    Raises:
        HeaderError: if there is none or it holds anything but literals and `Metric(...)`.
    """
    return _read(path, "SUITE", Suite)


def _read(path: Path, name: str, kind: type[Header]) -> Header:
    source = path.read_text(encoding="utf-8")
    call = _find_call(source, name, path)
    try:
        return kind(**{k.arg: _literal(k.value) for k in call.keywords if k.arg is not None})
    except (TypeError, ValueError) as error:
        raise HeaderError(
            f"{path}:{call.lineno}: {name} must be {kind.__name__}(...) of literals: {error}"
        ) from error


def _find_call(source: str, name: str, path: Path) -> ast.Call:
    """The call assigned to `name`, parsing only the text it stands in."""
    start = source.find(f"\n{name} = ") + 1
    if not start:
        raise HeaderError(f"{path}: no '{name} = {name.title()}(...)' at the top level")
    end = source.find("\n)\n", start)
    text = source[start : end + 3 if end > 0 else None]
    try:
        statement = ast.parse(text).body[0]
    except SyntaxError as error:
        raise HeaderError(f"{path}: {name} does not parse: {error}") from error
    ast.increment_lineno(statement, source.count("\n", 0, start))
    if not (isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call)):
        raise HeaderError(f"{path}:{statement.lineno}: {name} must be assigned one call")
    return statement.value


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Metric":
        return Metric(**{k.arg: _literal(k.value) for k in node.keywords if k.arg is not None})
    if isinstance(node, ast.Tuple):
        return tuple(_literal(item) for item in node.elts)
    return ast.literal_eval(node)
