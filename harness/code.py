"""The digest of all source a cell's result depends on, found by following imports.

Techniques, suites and the packages of third-party techniques are followed; the harness is how cells
run, not what they compute, and the versions of libraries stand in the record. An edit to one
technique leaves the cells of the others valid.
"""

import ast
import hashlib
import importlib.util
from collections.abc import Iterable
from functools import cache
from pathlib import Path


def code_digest(modules: Iterable[str]) -> str:
    """Sixteen hexadecimal digits over the sources of these modules and what they import."""
    pending, sources = list(modules), dict[str, str]()
    packages = {module.partition(".")[0] for module in pending} | {"impls", "suites"}
    while pending:
        module = pending.pop()
        if module in sources:
            continue
        sources[module] = _source(module)
        ours = (name for name in _imports(module) if name.partition(".")[0] in packages)
        pending += [name for name in ours if source_path(name)]
    text = "".join(f"{module}\0{source}\0" for module, source in sorted(sources.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _source(module: str) -> str:
    path = source_path(module)
    return path.read_text(encoding="utf-8") if path else ""


@cache
def _imports(module: str) -> frozenset[str]:
    """Modules named in import statements; `from a import b` names a and, if it is one, a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(_source(module))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(module, node)
            found |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def _absolute(module: str, node: ast.ImportFrom) -> str:
    """What `from ..a import b` means by `..a`, seen from this module."""
    path = source_path(module)
    inside = path is not None and path.name == "__init__.py"  # a package is its own level one
    parts = module.split(".")
    stem = parts[: len(parts) - node.level + inside] if node.level else []
    return ".".join([*stem, *([node.module] if node.module else [])])


@cache
def source_path(module: str) -> Path | None:
    """Source file of a module, without importing it; None if it is not a source module."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not spec.submodule_search_locations:  # one file, no package
        return Path(spec.origin) if spec.origin and spec.has_location and not rest else None
    place = Path(next(iter(spec.submodule_search_locations))).joinpath(*rest)
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)
