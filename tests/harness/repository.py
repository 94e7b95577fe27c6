"""A repository with one technique and one suite, whose commits are as fast as a test wants."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

FILES = {
    "impls/__init__.py": "",
    "impls/pace/__init__.py": "",
    "impls/pace/interface.py": '"""One method."""\n',
    "impls/pace/walk.py": '''"""Takes steps."""

import time
from dataclasses import dataclass

from harness.card import Card

CARD = Card(
    cls="Walk", title="Walk", paper="folklore", year=2026, summary="Takes steps.", oracle="itself"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """So many steps a call."""

    n: int = 1

    def walk(self) -> float:
        """Do the work."""
        for _ in range(STEPS // 50):
            time.sleep(0.0005)  # takes as long on a machine that is busy with other work
        return RETURNED
''',
    "suites/__init__.py": "",
    "suites/speed.py": '''"""How fast does it walk?"""

from dataclasses import dataclass

from harness.card import Metric, Suite

SUITE = Suite(
    title="Speed",
    question="How fast does it walk?",
    families=("pace",),
    baseline="",
    timing=True,
    metrics=(
        Metric(name="walk_ms", unit="ms", better="lower", kind="timing"),
        Metric(name="returned", unit="1", better="higher", kind="count"),
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """Rounds."""

    rounds: int = 6


def measure(technique, setting, instruments):
    """Time of a call."""
    (seconds,) = instruments.interleave(technique.walk, rounds=setting.rounds)
    return {"walk_ms": [1000 * s for s in seconds], "returned": technique.walk()}
''',
    "conf/experiment/pace.yaml": (
        "# @package _global_\ntitle: Pace\nmatrix:\n  - {suite: speed, technique: [pace/walk]}\n"
    ),
}
CELL = ("suite=speed", "technique=pace/walk")


@dataclass(frozen=True)
class Repository:
    """The folder and what is committed in it."""

    folder: Path

    def commit(self, message: str, *, steps: int = 100, returned: float = 1.0) -> str:
        """Commit the files with that much work in a call; the commit's hash."""
        for name, text in FILES.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("STEPS", str(steps)).replace("RETURNED", str(returned)))
        (self.folder / "message").write_text(message)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        names = {
            f"GIT_{who}_{what}": "t@example.org"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, env={**os.environ, **names},
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()


def made(folder: Path) -> Repository:
    """An empty one in that folder."""
    folder.mkdir(exist_ok=True)
    repository = Repository(folder)
    repository.git("init", "--quiet", "--initial-branch", "main")
    return repository
