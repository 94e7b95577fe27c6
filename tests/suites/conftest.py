"""A fake tokenizer and a fake peer in the catalogue, and instruments with a fresh cache."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import catalogue
from harness.artifacts import Artifacts
from harness.instruments import Instruments

FAKES = Path(__file__).parent / "fakes"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    return Artifacts(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def instruments(cache: Artifacts) -> Instruments:
    return Instruments(artifacts=cache, technique="tokenizers/fake_chars")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], type]:
    """Loads a fake by its catalogue name."""
    members = {}
    for name in ("tokenizers/fake_chars", "tokenizers/peers/fake_peer"):
        path = FAKES / f"{name.rpartition('/')[2]}.py"
        module_name = f"impls.{name.replace('/', '.')}"
        spec = importlib.util.spec_from_file_location(module_name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, module_name, module)
        spec.loader.exec_module(module)
        members[name] = catalogue.Source(module_name, path)
    monkeypatch.setattr(catalogue, "_members", lambda: members)
    return catalogue.load


@pytest.fixture
def corpus_file(tmp_path: Path) -> Callable[[list[str]], str]:
    """Writes documents and gives the `data` setting that reads them."""

    def write(documents: list[str]) -> str:
        path = tmp_path / "corpus.txt"
        path.write_text("\n\n".join(documents), encoding="utf-8")
        return f"file:{path}"

    return write
