"""Compiling, caching and loading C++ kernels."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import pytest

from impls.models import native

needs_compiler = pytest.mark.skipif(not native.available(), reason="no C++ compiler")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMATRIX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "native"


def kernel(folder, value):
    path = folder / "answer.cpp"
    more = "#ifndef MORE\n#define MORE 0\n#endif\n"
    path.write_text(f'{more}extern "C" int answer() {{ return {value} + MORE; }}')
    return path


def libraries(cache):
    return set(cache.glob("*/answer.so"))


@needs_compiler
def test_a_kernel_is_compiled_once(cache, tmp_path):
    source = kernel(tmp_path, 42)
    assert native.load(source).answer() == 42
    (library,) = libraries(cache)
    made = library.stat().st_mtime_ns
    assert native.load(source).answer() == 42
    assert libraries(cache) == {library}
    assert library.stat().st_mtime_ns == made
    assert {path.name for path in library.parent.iterdir()} <= {"answer.so", "answer.lock"}


@needs_compiler
def test_a_changed_source_or_flag_is_another_library(cache, tmp_path):
    assert native.load(kernel(tmp_path, 1)).answer() == 1
    assert native.load(kernel(tmp_path, 2)).answer() == 2
    assert native.load(kernel(tmp_path, 2), ("-DMORE=5",)).answer() == 7
    assert len(libraries(cache)) == 3


@needs_compiler
def test_many_at_once_get_one_library(cache, tmp_path):
    source = kernel(tmp_path, 3)
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(native.load, [source] * 4))
    assert all(isinstance(library, ctypes.CDLL) and library.answer() == 3 for library in loaded)
    assert len(libraries(cache)) == 1


@needs_compiler
def test_a_broken_source_shows_the_compiler_s_words_and_leaves_no_library(cache, tmp_path):
    with pytest.raises(native.NativeError, match=r"answer\.cpp.*undeclared_name"):
        native.load(kernel(tmp_path, "undeclared_name"))
    assert not libraries(cache)


def test_without_a_compiler_the_reason_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not native.available()
    assert "none of no-such-compiler is on the path" in native.why_unavailable()
    with pytest.raises(native.NativeError, match="set CXX"):
        native.load(kernel(tmp_path, 1))


def test_a_compiler_that_fails_is_not_taken(monkeypatch):
    monkeypatch.setenv("CXX", "false")
    assert "`" in native.why_unavailable()
    assert "-march=native" in native.why_unavailable()
