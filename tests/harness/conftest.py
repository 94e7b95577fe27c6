"""The third-party distribution of tests/fixtures/plugin, added to this process and taken away."""

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import axes, catalogue, code, plan

PLUGIN = Path(__file__).parents[1] / "fixtures" / "plugin"


def forget() -> None:
    """What the catalogue, the axes, the plan and the digests remember of the files they read."""
    for module in (catalogue, axes, plan, code):
        for value in list(vars(module).values()):
            if isinstance(value, functools._lru_cache_wrapper):
                value.cache_clear()


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(PLUGIN)
    forget()
    yield PLUGIN
    monkeypatch.undo()
    for name in [n for n in sys.modules if n.partition(".")[0] == "llmatrix_trial"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    forget()


@pytest.fixture(name="forget")
def _forget() -> Iterator[Callable[[], None]]:
    yield forget
    forget()
