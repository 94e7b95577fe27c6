"""Names of techniques, peers and suites, found by where their files lie, read without importing.

`impls/tokenizers/bpe.py` is `tokenizers/bpe`, `impls/tokenizers/peers/tiktoken.py` is
`tokenizers/peers/tiktoken`, `suites/parity.py` is `parity`. Other distributions add theirs through
the entry-point groups `llmatrix.techniques` (name `family/slug`) and `llmatrix.suites`, each naming
a module. Only `load` and the lazy family packages import anything.
"""

import importlib
import importlib.util
from collections.abc import Callable, Container, Iterable, Sequence
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from harness.card import Card, Suite, read_card, read_suite
from harness.code import source_path
from harness.errors import UsageError, near


class Source(NamedTuple):
    """Where a name lives."""

    module: str
    path: Path


def families() -> tuple[str, ...]:
    """Names of the families, alphabetical."""
    return tuple(sorted({name.partition("/")[0] for name in techniques()}))


@cache
def techniques() -> dict[str, Source]:
    """Every technique's name and source, peers left out, alphabetical."""
    return {name: source for name, source in _members().items() if "/peers/" not in name}


@cache
def peers() -> dict[str, Source]:
    """Every peer's name and source: canonical libraries behind their family's interface."""
    return {name: source for name, source in _members().items() if "/peers/" in name}


@cache
def suites() -> dict[str, Source]:
    """Every suite's name and source, alphabetical."""
    found = {path.stem: Source(f"suites.{path.stem}", path) for path in _files(_folder("suites"))}
    return dict(sorted((found | _third_party("llmatrix.suites", found)).items()))


def match(patterns: Iterable[str]) -> tuple[str, ...]:
    """Names of the techniques and peers that match, in catalogue order.

    `*` stays within one part of a name, so `tokenizers/*` leaves out `tokenizers/peers/*`; a
    pattern that begins with `!` takes its matches away again.

    Raises:
        UsageError: if a pattern matches nothing, with near misses.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        wanted = pattern.removeprefix("!")
        found = {name for name in _members() if glob(name, wanted)}
        if not found:
            raise UsageError(
                f"no technique matches {wanted!r}{near(wanted, [*_members(), *_globs()])} "
                "(`llmatrix list techniques` names all)"
            )
        chosen = chosen - found if pattern.startswith("!") else chosen | found
    return tuple(name for name in _members() if name in chosen)


def glob(name: str, pattern: str) -> bool:
    """Whether each part of the name matches the pattern's part in its place."""
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


@cache
def card(name: str) -> Card:
    """The card of a technique or peer."""
    return read_card(source(name).path)


@cache
def suite(name: str) -> Suite:
    """The header of a suite."""
    return read_suite(suite_source(name).path)


def known(name: str) -> bool:
    """Whether a technique or peer has this name."""
    return name in _members()


def source(name: str) -> Source:
    """Where a technique or peer lives.

    Raises:
        UsageError: for an unknown name, with near misses.
    """
    if name not in _members():
        raise UsageError(f"no technique is called {name!r}{near(name, _members())}")
    return _members()[name]


def suite_source(name: str) -> Source:
    """Where a suite lives.

    Raises:
        UsageError: for an unknown name, with near misses.
    """
    if name not in suites():
        raise UsageError(f"no suite is called {name!r}{near(name, suites())}")
    return suites()[name]


def load(name: str) -> Any:
    """The class of a technique or peer; imports its module."""
    return getattr(importlib.import_module(source(name).module), card(name).cls)


def load_suite(name: str) -> ModuleType:
    """The module of a suite."""
    return importlib.import_module(suite_source(name).module)


def name_of(technique: object) -> str:
    """The catalogue name of a technique's instance or class."""
    module = technique.__module__  # instances read it from their class
    for name, (candidate, _) in _members().items():
        if candidate == module:
            return name
    raise UsageError(f"{module} is not in the catalogue")


def peers_of(name: str) -> tuple[str, ...]:
    """Peers that repeat this technique's work."""
    return tuple(peer for peer in peers() if name in card(peer).peer_of)


def missing_packages(name: str) -> tuple[str, ...]:
    """Packages the card asks for that are not installed."""
    return tuple(p for p in card(name).packages if importlib.util.find_spec(p) is None)


def lazy_family(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a family package: `from impls.peft import LoRA` works."""
    family = package.rpartition(".")[2]

    def classes() -> dict[str, str]:
        return {card(name).cls: name for name in techniques() if name.startswith(f"{family}/")}

    def get(attribute: str) -> Any:
        if attribute.startswith("_") or attribute not in classes():
            raise AttributeError(f"module {package!r} has no attribute {attribute!r}")
        return load(classes()[attribute])

    return get, lambda: sorted(classes())


def _globs() -> set[str]:
    """`tokenizers/*`, `tokenizers/peers/*`: the patterns a typing error may have been meant for."""
    return {f"{name.rpartition('/')[0]}/*" for name in _members()}


@cache
def _members() -> dict[str, Source]:
    root = _folder("impls")
    found: dict[str, Source] = {}
    for folder in sorted(path for path in root.iterdir() if (path / "interface.py").exists()):
        for path in (*_files(folder), *_files(folder / "peers")):
            slug = path.relative_to(root).with_suffix("")
            found[slug.as_posix()] = Source(f"impls.{'.'.join(slug.parts)}", path)
    return dict(sorted((found | _third_party("llmatrix.techniques", found)).items()))


def _files(folder: Path) -> Sequence[Path]:
    return [
        path
        for path in sorted(folder.glob("*.py"))
        if not path.name.startswith("_") and path.stem != "interface"
    ]


@cache
def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"the package {package!r} is not installed: pip install -e .")
    return Path(next(iter(spec.submodule_search_locations)))


def _third_party(group: str, ours: Container[str]) -> dict[str, Source]:
    found = {}
    for entry in entry_points(group=group):
        owner = f"{entry.name} = {entry.value} of {entry.dist.name if entry.dist else 'a package'}"
        path = source_path(entry.module)
        if path is None:
            raise UsageError(f"{owner} names no module: install that package again or remove it")
        if entry.name in ours:
            raise UsageError(f"{owner} takes a name that llmatrix has: rename it or remove it")
        found[entry.name] = Source(entry.module, path)
    return found
