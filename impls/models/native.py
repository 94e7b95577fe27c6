"""C++ kernels: compiled on first use for this very machine, kept in the cache, called by ctypes.

A kernel is one `.cpp` file of `extern "C"` functions over plain pointers. It includes no header of
Python or torch, so compiling takes seconds and needs nothing but a C++17 compiler. The compiled
library is named by the hash of its source, its flags and everything the compiler predefines (its
version and the machine's instruction sets among it), so a cache shared by unlike machines is safe.
Loading starts no thread and keeps no state: a process may fork after it.
"""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock
from platformdirs import user_cache_path

COMPILERS = ("c++", "g++", "clang++")
FLAGS = (
    "-std=c++17", "-O3", "-fno-strict-aliasing", "-fPIC", "-shared", "-pthread", "-Wno-psabi",
)  # fmt: skip


class NativeError(RuntimeError):
    """No C++ compiler, or one that fails on a kernel; the message says which and what to do."""


class Compiler(NamedTuple):
    """A compiler that works."""

    command: tuple[str, ...]  # with the flags every kernel is compiled with
    macros: str  # all it predefines under these flags


def why_unavailable() -> str | None:
    """Why kernels cannot be compiled here, or None where they can."""
    try:
        _compiler(os.environ.get("CXX"))
    except NativeError as error:
        return str(error)
    return None


def available() -> bool:
    """Whether kernels can be compiled here; `why_unavailable` gives the reason if not."""
    return why_unavailable() is None


def load(source: Path, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """The library compiled from a C++ file, with flags beyond the usual ones.

    The first process compiles, others wait for it. Keep what this returns: it reads and hashes the
    source each time.

    Raises:
        NativeError: if there is no compiler or it rejects the file.
    """
    compiler = _compiler(os.environ.get("CXX"))
    command = (*compiler.command, *flags)
    identity = "\0".join((*command, compiler.macros)).encode()
    name = hashlib.sha256(identity + b"\0" + source.read_bytes()).hexdigest()
    library = _folder() / name / f"{source.stem}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(library.with_suffix(".lock")):
            if not library.exists():
                _compile(source, command, library)
    return ctypes.CDLL(str(library))


def _compile(source: Path, compiler: tuple[str, ...], library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        made = Path(scratch) / library.name
        command = (*compiler, str(source), "-o", str(made))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NativeError(f"`{' '.join(command)}` failed:\n{done.stderr[:2000]}")
        made.replace(library)


@cache
def _compiler(chosen: str | None) -> Compiler:
    """`$CXX`, or the first of the usual names that is there and works."""
    names = (chosen,) if chosen else COMPILERS
    tried = []
    for name, *own in map(shlex.split, names):
        for flags in ((*FLAGS, "-march=native"), FLAGS) if shutil.which(name) else ():
            command = (name, *own, *flags)
            question = (*command, "-dM", "-E", "-x", "c++", os.devnull)
            answer = subprocess.run(question, capture_output=True, text=True, check=False)
            if not answer.returncode:
                return Compiler(command, answer.stdout)
            tried.append(f"`{' '.join(question)}` failed: {answer.stderr.strip()[-200:]}")
    reasons = "; ".join(tried) or f"none of {', '.join(names)} is on the path"
    raise NativeError(f"no C++17 compiler: {reasons}; install g++ or clang++, or set CXX")


def _folder() -> Path:
    chosen = os.environ.get("LLMATRIX_CACHE")
    return (Path(chosen) if chosen else user_cache_path("llmatrix")) / "native"
