"""The facts beside every measurement: complete, JSON, and true of this machine."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pytest

from harness import environment


def test_the_environment_is_json_and_names_machine_and_versions():
    facts = environment.environment()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["versions"]["torch"] == version("torch")
    assert facts["cores"] == os.cpu_count()
    assert facts["memory_bytes"] > 2**28
    assert 1 <= facts["usable_cores"] <= facts["cores"]


def test_the_machine_class_names_processor_cores_memory_and_gpus(monkeypatch):
    monkeypatch.setattr(environment, "_cpu_model", lambda: "Trial  7")
    monkeypatch.setattr(environment, "usable_cores", lambda: [0, 1])
    monkeypatch.setattr(environment.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(environment, "_memory_gib", lambda n_bytes: 24)
    monkeypatch.setattr(environment, "_gpus", list)
    assert environment.machine_class() == "Trial 7, 2 cores, 24 GB"
    monkeypatch.setattr(environment.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(environment, "_gpus", lambda: ["H100", "H100", "A10"])
    assert environment.machine_class() == "Trial 7, 2 of 64 cores, 24 GB, 2 x H100, A10"


def test_the_machine_class_names_no_host(monkeypatch):
    before = environment.machine_class()
    assert before == environment.environment()["machine_class"]
    monkeypatch.setattr(environment.platform, "node", lambda: "another")
    assert environment.machine_class() == before


@pytest.mark.parametrize(
    ("installed", "lost"), [(2, 0.25), (8, 0.5), (16, 0.7), (24, 0.5), (64, 2), (384, 9)]
)
def test_memory_is_the_same_whatever_the_kernel_keeps(installed, lost):
    sizes = {environment._memory_gib(int((installed - part) * 2**30)) for part in (0, lost)}
    assert sizes == {installed}


def test_gpus_are_named_by_the_driver_s_tool_where_the_library_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(environment.nvidia, "names", list)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment._gpus() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho H100\necho H100\n")
    tool.chmod(0o755)
    assert environment._gpus() == ["H100", "H100"]
    tool.write_text("#!/bin/sh\necho no driver\nexit 9\n")
    assert environment._gpus() == []


def test_a_package_that_is_not_installed_is_left_out():
    assert environment._version("a-package-that-does-not-exist") is None
    assert None not in environment.environment()["versions"].values()


def test_the_commit_is_the_repository_s():
    here = Path(environment.__file__).parent
    done = subprocess.run(
        ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    facts = environment._commit()
    assert facts.get("commit", "") == (done.stdout.strip() if done.returncode == 0 else "")
    assert isinstance(facts.get("dirty", False), bool)


def test_outside_a_repository_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "harness" / "environment.py"))
    assert environment._commit() == {}


def test_without_git_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment._commit() == {}


def test_load_is_three_averages():
    averages = environment.load()
    assert len(averages) == 3
    assert all(value >= 0 for value in averages)


def test_now_is_in_utc():
    moment = datetime.fromisoformat(environment.now())
    assert moment.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)


def test_usable_cores_follow_the_affinity(monkeypatch):
    assert environment.usable_cores() == sorted(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert environment.usable_cores() == list(range(os.cpu_count()))
