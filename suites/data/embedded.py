"""Corpora that come with every installation: nothing is downloaded.

- `english`: CPython's language reference, a document a topic, and the docstrings of the standard
  library, a document a module;
- `code`: the modules of the standard library;
- `multilingual`: names of the same things in many languages, from CLDR as `babel` ships it.
"""

import ast
import platform
import sysconfig
import tokenize
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from itertools import groupby
from pathlib import Path
from pydoc_data.topics import topics

import babel

from suites.data.document import Document

# Installed packages, tests, other programs, tables of characters, and the reference itself as data.
NOT_CODE = {
    "site-packages", "dist-packages", "test", "tests", "idlelib", "idle_test", "lib2to3",
    "turtledemo", "encodings", "pydoc_data",
}  # fmt: skip
GENERATED = ("config-", "_sysconfigdata")  # how this interpreter was built, different everywhere

# Languages CLDR covers well, of 20 scripts; the first is what costs are relative to.
LANGUAGES = (
    "en", "ar", "bn", "cs", "de", "el", "es", "fa", "fi", "fr", "gu", "he", "hi", "hu", "id", "it",
    "ja", "ka", "ko", "ml", "mr", "ne", "nl", "pl", "pt", "ro", "ru", "sv", "ta", "te", "th", "tr",
    "uk", "vi", "zh",
)  # fmt: skip
NAMES_PER_TOPIC = 8


def english() -> list[Document]:
    """The language reference and the docstrings of the standard library."""
    reference = [Document(f"topics/{name}", text, name) for name, text in sorted(topics.items())]
    modules = ((name, _docstrings(source)) for name, source in library())
    return reference + [Document(f"docstrings/{n}", text, n) for n, text in modules if text.strip()]


def code() -> list[Document]:
    """The modules of the standard library."""
    return [Document(name, source, name) for name, source in library() if source.strip()]


def multilingual() -> list[Document]:
    """Eight names a document, one a line; a topic holds the same eight in every language."""
    names = {language: _names(babel.Locale.parse(language)) for language in LANGUAGES}
    shared = reduce(set.intersection, (set(known) for known in names.values()))
    documents = []
    for category, keys in groupby(sorted(shared), key=lambda key: key[0]):
        ordered = list(keys)
        for start in range(0, len(ordered), NAMES_PER_TOPIC):
            topic = f"{category}/{start:04}"
            for language, known in names.items():
                lines = [known[key] for key in ordered[start : start + NAMES_PER_TOPIC]]
                documents.append(Document(f"{topic}/{language}", "\n".join(lines), topic))
    return documents


EMBEDDED: Mapping[str, Callable[[], list[Document]]] = {
    "english": english,
    "code": code,
    "multilingual": multilingual,
}


def versions() -> dict[str, str]:
    """What the embedded corpora are made from."""
    return {"python": platform.python_version(), "babel": babel.__version__}


def library() -> Iterator[tuple[str, str]]:
    """Name and source of each module, alphabetical."""
    root = Path(sysconfig.get_path("stdlib"))
    for entry in sorted(root.iterdir()):
        if entry.name in NOT_CODE or entry.name.startswith(GENERATED):
            continue
        files = sorted(entry.rglob("*.py")) if entry.is_dir() else [entry]
        for path in files:
            if path.suffix == ".py" and NOT_CODE.isdisjoint(path.relative_to(root).parts):
                with tokenize.open(path) as file:  # the declared encoding, not always UTF-8
                    yield path.relative_to(root).as_posix(), file.read()


def _docstrings(source: str) -> str:
    """All docstrings of a module in the order they stand, a blank line between them."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    owners = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    owners.sort(key=lambda node: getattr(node, "lineno", 0))
    return "\n\n".join(text for text in map(ast.get_docstring, owners) if text)


def _names(locale: babel.Locale) -> dict[tuple[str, str], str]:
    """Names of things in one language by category and CLDR key."""
    names = {
        (category, key): name
        for category in ("territories", "languages", "currencies", "scripts")
        for key, name in getattr(locale, category).items()
    }
    for category in ("months", "days", "quarters"):
        wide = getattr(locale, category)["stand-alone"]["wide"]
        names |= {(category, str(key)): name for key, name in wide.items()}
    for key, zone in locale.meta_zones.items():
        if "standard" in zone.get("long", {}):
            names["zones", key] = zone["long"]["standard"]
    return names
