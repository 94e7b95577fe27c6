"""An artifact is built once whoever asks, and a builder that dies leaves nothing in the way."""

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import Artifacts, default_folder

SPAWN = multiprocessing.get_context("spawn")
IDENTITY = {"corpus": "english", "size": 3}


def write(path: Path) -> None:
    path.write_text("built")


def test_built_once_and_found_again(tmp_path: Path) -> None:
    artifacts, built = Artifacts(tmp_path), []

    def build(path: Path) -> None:
        built.append(path)
        write(path)

    first = artifacts.get("text", IDENTITY, build)
    again = artifacts.get("text", dict(reversed(IDENTITY.items())), build)
    other = artifacts.get("text", {**IDENTITY, "size": 4}, build)
    assert first == again != other
    assert first.read_text() == "built"
    assert len(built) == 2
    assert artifacts.get("index", IDENTITY, build) != first


def test_folder_is_an_artifact_too(tmp_path: Path) -> None:
    def build(path: Path) -> None:
        path.mkdir()
        write(path / "part")

    assert (Artifacts(tmp_path).get("folder", IDENTITY, build) / "part").read_text() == "built"


def test_builder_that_raises_leaves_nothing_and_the_next_builds(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)

    def fail(path: Path) -> None:
        path.write_text("half")
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        artifacts.get("text", IDENTITY, fail)
    assert [path.name for path in (tmp_path / "text").iterdir()] == [".leases"]
    assert not list((tmp_path / "text" / ".leases").iterdir())
    assert artifacts.get("text", IDENTITY, write).read_text() == "built"


def test_builder_that_writes_nothing_is_told(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    with pytest.raises(ValueError, match=r"the builder of text .* wrote nothing"):
        artifacts.get("text", IDENTITY, lambda _path: None)
    assert artifacts.get("text", IDENTITY, write).read_text() == "built"


def test_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMATRIX_CACHE", "/somewhere/else")
    assert default_folder() == Path("/somewhere/else")
    monkeypatch.delenv("LLMATRIX_CACHE")
    assert default_folder().name == "llmatrix"


def slow_build(path: Path) -> None:
    """Notes each call beside the cache."""
    with (path.parents[3] / "calls").open("a") as calls:
        calls.write(f"{os.getpid()}\n")
    path.write_text("half")
    time.sleep(0.3)
    path.write_text("built")


def endless_build(path: Path) -> None:
    path.write_text("half")
    (path.parents[3] / "calls").touch()
    time.sleep(60)


def get(folder: str, start: Any, results: Any) -> None:
    start.wait(60)
    results.put(Artifacts(Path(folder)).get("text", IDENTITY, slow_build).read_text())


def get_endless(folder: str) -> None:
    Artifacts(Path(folder)).get("text", IDENTITY, endless_build)


def test_processes_at_the_same_time_build_once(tmp_path: Path) -> None:
    start, results = SPAWN.Event(), SPAWN.Queue()
    arguments = (str(tmp_path / "cache"), start, results)
    processes = [SPAWN.Process(target=get, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    start.set()
    assert [results.get(timeout=60) for _ in processes] == ["built"] * 3
    for process in processes:
        process.join()
    assert len((tmp_path / "calls").read_text().split()) == 1


def test_killed_builder_is_cleared_up_by_the_next(tmp_path: Path, trial: Any) -> None:
    builder = SPAWN.Process(target=get_endless, args=(str(tmp_path / "cache"),))
    builder.start()
    trial.until((tmp_path / "calls").exists)
    builder.kill()
    builder.join()
    artifact = Artifacts(tmp_path / "cache").get("text", IDENTITY, write)
    assert artifact.read_text() == "built"
    left = {path.name for path in (tmp_path / "cache" / "text").iterdir()}
    assert left == {artifact.parent.name, ".leases"}


def test_a_resumable_builder_finds_what_the_dead_one_left(tmp_path):
    artifacts = Artifacts(tmp_path)

    def build(path):
        note = path.with_name("half")
        if not note.exists():
            note.write_text("so far")
            raise RuntimeError("killed")
        path.write_text(note.read_text())

    with pytest.raises(RuntimeError, match="killed"):
        artifacts.get("model", {"n": 1}, build, resumable=True)
    made = artifacts.get("model", {"n": 1}, build, resumable=True)
    assert made.read_text() == "so far"
