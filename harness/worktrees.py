"""Two revisions of this repository side by side: checked out, planned, ready to be measured.

Each gets a worktree of its own, and a folder of packages in which techniques, suites and
configuration are the revision's while the harness is ours: one instrument measures both.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.card import Suite, read_suite
from harness.cell import Cell
from harness.errors import UsageError
from harness.server import environment_with

ROOT = Path(__file__).resolve().parent.parent
WORKING_TREE = "."  # in the place of a revision: the files as they are
_MEASURED = ("impls", "suites", "conf/experiment")  # what a revision brings
_OURS = ("harness", "hydra_plugins", "conf/__init__.py", "conf/config.yaml", "conf/machine")


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """One revision's sources, as cells import them."""

    revision: str  # as the user named it
    commit: str
    dirty: bool
    sources: Path  # goes first on the path of its processes
    root: Path = field(repr=False)

    def plan(self, overrides: Sequence[str]) -> list[Cell]:
        """The cells that the command line means in this revision.

        Raises:
            UsageError: if it cannot be planned there; says what that revision said.
        """
        done = subprocess.run(
            [sys.executable, "-P", "-m", "harness", "plan", "--json", *overrides],
            cwd=self.sources,
            env=environment_with(self.sources),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise UsageError(f"revision {self.revision!r}: {last.removeprefix('llmatrix: ')}")
        cells: list[dict[str, Any]] = json.loads(done.stdout)["cells"]
        return [Cell(**{k: v for k, v in cell.items() if k != "cell_id"}) for cell in cells]

    def suite(self, name: str) -> Suite:
        """The header of a suite as this revision has it."""
        return read_suite(self.root / "suites" / f"{name}.py")


@contextmanager
def checkouts(*revisions: str, root: Path = ROOT) -> Iterator[list[Checkout]]:
    """Both sides' sources, until the block ends.

    Raises:
        UsageError: for a revision that is not there, or where there is no repository.
    """
    with ExitStack() as cleanup:
        yield [cleanup.enter_context(_checkout(revision, root)) for revision in revisions]


@contextmanager
def _checkout(revision: str, root: Path) -> Iterator[Checkout]:
    here = revision == WORKING_TREE
    commit = commit_of("HEAD" if here else revision, root)
    with tempfile.TemporaryDirectory(prefix="llmatrix-") as folder:
        tree = root if here else Path(folder) / "tree"
        if not here:
            _git(root, "worktree", "prune")  # of processes that were killed
            _git(root, "worktree", "add", "--detach", "--quiet", str(tree), commit)
        try:
            sources = Path(folder) / "sources"
            (sources / "conf").mkdir(parents=True)
            for name in _MEASURED:
                (sources / name).symlink_to(tree / name)
            for name in _OURS:
                (sources / name).symlink_to(ROOT / name)
            dirty = here and bool(_git(root, "status", "--porcelain"))
            yield Checkout(
                revision=revision, commit=commit, dirty=dirty, sources=sources, root=tree
            )
        finally:
            if not here:
                _git(root, "worktree", "remove", "--force", str(tree))


def commit_of(revision: str, root: Path = ROOT) -> str:
    """The full hash of a commit.

    Raises:
        UsageError: if there is no such commit, or no repository.
    """
    try:
        return _git(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    except UsageError as error:
        if not (root / ".git").exists():
            raise
        raise UsageError(
            f"no commit is called {revision!r} in this repository; `git log --oneline` names "
            f"commits, and {WORKING_TREE!r} means the files as they are"
        ) from error


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
    except FileNotFoundError as error:
        raise UsageError("git is not installed; revisions cannot be checked out") from error
    except subprocess.CalledProcessError as error:
        message = error.stderr.strip() or f"git {arguments[0]} failed"
        raise UsageError(f"{message} (in the repository of {root.name})") from error
    return done.stdout.strip()
