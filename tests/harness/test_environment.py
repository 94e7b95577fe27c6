"""The facts beside every measurement: complete, JSON, and true of this machine."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

from harness import environment


def test_the_environment_is_json_and_names_machine_and_versions():
    facts = environment.environment()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["versions"]["torch"] == version("torch")
    assert facts["cores"] == os.cpu_count()
    assert facts["memory_bytes"] > 2**28
    assert 1 <= facts["usable_cores"] <= facts["cores"]


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
