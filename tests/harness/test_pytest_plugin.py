"""The gate for any project's tests, in real test runs of a small repository."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness import pytest_plugin

ROOT = Path(pytest_plugin.__file__).parents[1]
# It sleeps, since that takes as long on a machine that is busy with other work.
MODULE = """
import time

def work(n={n}):
    time.sleep(1e-6 * n)
    return n
"""
TEST = """
import pytest
import mod

@pytest.mark.parametrize("way", ["a"])
def test_work(gate, way):
    assert gate(mod.work) > 0
"""


@dataclass(frozen=True)
class Project:
    """A repository with one gated test; its module is imported through PYTHONPATH."""

    folder: Path

    def write(self, **files):
        for name, text in files.items():
            path = self.folder / (name.replace("__", "/") + ".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def git(self, *words):
        name = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(self.folder), *name, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout

    def commit(self):
        self.git("add", "-A")
        self.git("commit", "-qm", "one")

    def pytest(self, *words, plugin="llmatrix"):
        path = [str(self.folder / "src"), str(ROOT)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "TMPDIR": str(self.folder.parent),
        }
        environment.pop("PYTEST_ADDOPTS", None)
        command = [sys.executable, "-m", "pytest", "-q", "-p", plugin, "-p", "no:cacheprovider"]
        return subprocess.run(
            [*command, *words], cwd=self.folder, env=environment, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "project")
    project.folder.mkdir()
    (project.folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    project.git("init", "-q", "-b", "main")
    project.write(src__mod=MODULE.format(n=4000), tests__test_mod=TEST)
    project.commit()
    yield project
    left = [path.name for path in tmp_path.glob("llmatrix-*")]
    assert not left, "a test run leaves no worktree and no socket"
    assert len(project.git("worktree", "list").splitlines()) == 1


def test_loading_the_plugin_costs_next_to_nothing():
    script = (
        "import sys, pytest\n"
        "from time import process_time\n"
        "before, start = set(sys.modules), process_time()\n"
        "import harness.pytest_plugin\n"
        "print(process_time() - start, *sorted(set(sys.modules) - before))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(3)
    ]
    assert all(new == ["harness", "harness.pytest_plugin"] for _, *new in runs)
    assert min(float(seconds) for seconds, *_ in runs) < 0.02


@pytest.mark.parametrize("plugin", ["llmatrix", "harness.pytest_plugin"])
def test_installed_it_is_known_by_name_and_by_module(project, plugin):
    done = project.pytest("--llmatrix-rounds=10", plugin=plugin)
    assert done.returncode == 0, done.stdout


def test_installed_it_is_loaded_without_being_asked_for(project):
    words = [sys.executable, "-m", "pytest", "--help"]
    done = subprocess.run(words, cwd=project.folder, capture_output=True, text=True, check=True)
    assert "--llmatrix-baseline=REV|FILE" in done.stdout


def test_without_a_gated_test_nothing_more_is_imported(project):
    project.write(
        tests__test_plain="import sys\n\n"
        "def test_plain():\n    assert not {'numpy', 'scipy', 'harness.verdict'} & {*sys.modules}\n"
    )
    done = project.pytest("tests/test_plain.py")
    assert done.returncode == 0, done.stdout
    assert "llmatrix" not in done.stdout


def test_without_a_baseline_figures_join_the_report(project):
    done = project.pytest("--junitxml=report.xml", "--llmatrix-rounds=10")
    assert done.returncode == 0, done.stdout
    assert "tests/test_mod.py::test_work[a]: " in done.stdout
    assert "a call (median of 10 rounds)" in done.stdout
    root = ElementTree.parse(project.folder / "report.xml")  # noqa: S314 (pytest's own file)
    properties = {p.get("name"): p.get("value") for p in root.iter("property")}
    assert 0 < float(properties["llmatrix_median_s"]) < 1
    assert properties["llmatrix_rounds"] == "10"
    assert "llmatrix_samples" not in properties


def test_a_regression_against_a_revision_fails_and_is_confirmed(project):
    project.write(src__mod=MODULE.format(n=8000))
    done = project.pytest("--llmatrix-baseline=main", "--llmatrix-rounds=30")
    assert done.returncode == 1, done.stdout
    assert "1 failed" in done.stdout
    assert "regressed: " in done.stdout
    assert "main → working tree (confirmed; first " in done.stdout


def test_an_improvement_and_the_kept_samples(project):
    project.write(src__mod=MODULE.format(n=2000))
    done = project.pytest(
        "--llmatrix-baseline=main", "--llmatrix-rounds=30", "--llmatrix-save=kept/samples.json"
    )
    assert done.returncode == 0, done.stdout
    assert "note: tests/test_mod.py::test_work[a]: improved: " in done.stdout
    kept = json.loads((project.folder / "kept" / "samples.json").read_bytes())
    (found,) = kept["tests"].values()
    assert len(found["samples"]) == sum(found["generations"]) >= 10
    assert found["generations"] == [5] * len(found["generations"])


def test_the_same_code_does_not_regress(project):
    done = project.pytest("--llmatrix-baseline=HEAD", "--llmatrix-margin=0.1")
    assert done.returncode == 0, done.stdout
    assert any(f": {word}: " in done.stdout for word in ("equivalent", "unresolved"))


def test_a_test_that_the_revision_lacks_passes_and_says_so(project):
    project.write(tests__test_new=TEST.replace("test_work", "test_new"))
    done = project.pytest("--llmatrix-baseline=main", "tests/test_new.py")
    assert done.returncode == 0, done.stdout
    assert "test_new[a]: not in main: nothing to compare with" in done.stdout


def test_a_test_that_the_revision_fails_passes_and_says_so(project):
    project.write(src__mod="def work():\n    raise RuntimeError('old trouble')\n")
    project.commit()
    project.write(src__mod=MODULE.format(n=4000))
    done = project.pytest("--llmatrix-baseline=main")
    assert done.returncode == 0, done.stdout
    assert "failed in main, nothing to compare with" in done.stdout
    assert "old trouble" in done.stdout


def test_a_baseline_that_imports_the_working_tree_is_no_baseline(project):
    project.write(conftest=f"import sys\nsys.path.insert(0, {str(project.folder / 'src')!r})\n")
    project.commit()
    done = project.pytest("--llmatrix-baseline=main")
    assert done.returncode == 1, done.stdout
    assert "the process of main imported mod from the working tree" in done.stdout


def test_figures_travel_from_workers(project):
    words = ["-p", "xdist.plugin", "-n2", "--llmatrix-rounds=10", "--llmatrix-save=kept.json"]
    done = project.pytest(*words)
    assert done.returncode == 0, done.stdout
    assert "a call (median of 10 rounds)" in done.stdout
    assert "warning: tests of several workers disturb one another: use -n0" in done.stdout
    kept = json.loads((project.folder / "kept.json").read_bytes())
    assert list(kept["tests"]) == ["tests/test_mod.py::test_work[a]"]


def test_setup_is_not_timed_and_its_result_is_the_argument(project):
    project.write(
        tests__test_setup="import time\n\n"
        "def make():\n    time.sleep(0.02)\n    return [3, 1, 2]\n\n"
        "def test_setup(gate):\n    assert gate(sorted, setup=make) == [1, 2, 3]\n"
    )
    done = project.pytest(
        "tests/test_setup.py", "--llmatrix-rounds=10", "--llmatrix-save=samples.json"
    )
    assert done.returncode == 0, done.stdout
    kept = json.loads((project.folder / "samples.json").read_bytes())
    (found,) = kept["tests"].values()
    assert len(found["samples"]) == 10
    assert sorted(found["samples"])[5] < 0.005


def test_a_short_function_is_repeated_in_a_round(project):
    project.write(
        tests__test_short="calls = []\n\ndef test_short(gate):\n    gate(lambda: calls.append(0))\n"
        "    assert len(calls) > 10_000\n"
    )
    done = project.pytest("tests/test_short.py", "--llmatrix-rounds=10")
    assert done.returncode == 0, done.stdout
    assert "ns a call" in done.stdout


def test_gate_is_called_once_a_test(project):
    project.write(tests__test_two="def test_two(gate):\n    gate(int)\n    gate(int)\n")
    done = project.pytest("tests/test_two.py", "--llmatrix-rounds=10")
    assert done.returncode == 1
    assert "called twice in one test: make it two tests" in done.stdout


@pytest.fixture
def kept(project):
    done = project.pytest("--llmatrix-rounds=20", "--llmatrix-save=kept.json")
    assert done.returncode == 0, done.stdout
    return project.folder / "kept.json"


def test_stored_samples_are_a_baseline(project, kept):
    project.write(src__mod=MODULE.format(n=12000))
    done = project.pytest("--llmatrix-rounds=20", f"--llmatrix-baseline={kept}")
    assert done.returncode == 1, done.stdout
    assert "regressed: " in done.stdout
    assert "against stored samples, not in turns" in done.stdout


def test_stored_samples_of_another_machine_give_no_verdict(project, kept):
    document = json.loads(kept.read_bytes())
    kept.write_text(json.dumps({**document, "machine_class": "abacus"}), encoding="utf-8")
    project.write(src__mod=MODULE.format(n=12000))
    done = project.pytest("--llmatrix-rounds=20", f"--llmatrix-baseline={kept}")
    assert done.returncode == 0, done.stdout
    assert "warning: tests/test_mod.py::test_work[a]: the baseline's samples are of another" in (
        done.stdout
    )


def test_a_test_that_the_file_lacks_passes_and_says_so(project, kept):
    project.write(tests__test_new=TEST.replace("test_work", "test_new"))
    done = project.pytest(
        "--llmatrix-rounds=20", f"--llmatrix-baseline={kept}", "tests/test_new.py"
    )
    assert done.returncode == 0, done.stdout
    assert "not in the baseline's file: nothing to compare with" in done.stdout


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--llmatrix-baseline=nowhere", "nowhere"),
        ("--llmatrix-baseline=pytest.ini", "cannot be read as a baseline"),
        ("--llmatrix-rounds=9", "must be 10 or more, got '9'"),
        ("--llmatrix-margin=5", "must be between 0 and 1 (0.01 is one per cent), got '5'"),
    ],
)
def test_bad_options_are_one_message(project, word, message):
    done = project.pytest(word)
    assert done.returncode == 4
    assert message in done.stderr
    assert "Traceback" not in done.stderr
