"""fla-core's naive forms, without its Triton kernels."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def fla_naive():
    """The module `fla.ops.NAME.naive`, loaded by itself: the package warns where it has no GPU."""

    def load(name: str) -> ModuleType:
        found = importlib.util.find_spec("fla")
        if found is None or found.origin is None:
            pytest.skip("fla-core is not installed")
        path = Path(found.origin).parent / "ops" / name / "naive.py"
        spec = importlib.util.spec_from_file_location(f"fla_naive_{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
