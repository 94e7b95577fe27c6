"""One test of a test run, in a worktree of another revision and in the working tree, in turns."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.errors import UsageError
from harness.pytest_plugin import CHILD, PLUGIN
from harness.relay import run_relay

_LIMIT_S = 300.0  # that one process may be at work
_NOT_FOUND = (4, 5)  # pytest's exit codes where a test or its file does not exist
_TAIL = 1_500  # characters of a child's output that are told
_HOME = str(Path(harness.__file__).parents[1])
# The children use this harness, whatever their own tree or installation holds.
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from harness.gate import child; "
    "del sys.path[0]; sys.exit(child.main())"
)


@dataclass
class Sides:
    """Samples of both sides, process after process."""

    baseline: list[float] = field(default_factory=list)
    candidate: list[float] = field(default_factory=list)
    generations: list[int] = field(default_factory=list)
    missing: str = ""  # why there is nothing to compare with


class Child:
    """A pytest process of one test; a member of a relay."""

    def __init__(self, job: dict[str, Any], folder: Path, scratch: Path) -> None:
        self.code = -1  # how it ended
        self._out = Path(tempfile.mkdtemp(dir=scratch)) / "measured.json"
        self._log = self._out.with_name("log")
        self._job = {**job, "out": str(self._out)}
        self._folder = folder
        self._ended, self._alive = os.pipe()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, address: str) -> None:
        """Begin, to take turns at `address`."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, _HOME],
                cwd=self._folder,
                env={**os.environ, CHILD: json.dumps({**self._job, "address": address})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(self._alive,),
                start_new_session=True,
            )
        os.close(self._alive)  # now the pipe ends when the process does

    def fileno(self) -> int:
        """Readable when the process and its children have ended."""
        return self._ended

    def kill(self) -> None:
        """End the process and its children."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def measured(self) -> dict[str, Any]:
        """What the ended process left: nothing if it did not come so far."""
        os.close(self._ended)
        if self._process is not None:
            self.code = self._process.wait()
        found: dict[str, Any] = {}
        if self.code == 0 and self._out.exists():
            found = json.loads(self._out.read_bytes())
        return found

    def told(self) -> str:
        """The end of its output."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-_TAIL:].strip()


class Revision:
    """The baseline of a test run, in a worktree of its own from its first use until `close`."""

    def __init__(self, name: str, config: pytest.Config) -> None:
        """Find the commit.

        Raises:
            UsageError: if there is no such revision.
        """
        self.name = name
        self._config = config
        self._top = Path(_git(config.rootpath, "rev-parse", "--show-toplevel")).resolve()
        self._commit = _git(self._top, "rev-parse", "--verify", f"{name}^{{commit}}")
        self._scratch: Path | None = None

    def close(self) -> None:
        """Remove the worktree."""
        if self._scratch is not None:
            _git(self._top, "worktree", "remove", "--force", str(self._scratch / "baseline"))
            shutil.rmtree(self._scratch, ignore_errors=True)

    def measure(self, item: pytest.Item, rounds: int, sides: Sides) -> None:
        """Add a generation of samples to both sides, or say why there is nothing to compare with.

        Raises:
            UsageError: if the test does not end well in the working tree, or the baseline's
                process imported from the working tree.
        """
        generation, scratch = len(sides.generations), self._worktree()
        old = self._child(item, scratch / "baseline", rounds)
        new = self._child(item, self._top, rounds)
        order = [old, new] if generation % 2 else [new, old]
        run_relay(order, limit_s=_LIMIT_S, seed=generation)
        before, after = old.measured(), new.measured()
        if not after:
            raise UsageError(f"its own process did not measure:\n{new.told()}")
        if strayed := before.get("strayed"):
            raise UsageError(
                f"the process of {self.name} imported {', '.join(strayed[:5])} from the working "
                "tree: let both import by path, e.g. with `pythonpath` in the pytest configuration"
            )
        sides.candidate += after["samples"]
        sides.baseline += before.get("samples", [])
        sides.generations.append(rounds)
        if not before:
            sides.missing = self._why(old)

    def _worktree(self) -> Path:
        if self._scratch is None:
            scratch = Path(tempfile.mkdtemp(prefix="llmatrix-gate-")).resolve()
            _git(self._top, "worktree", "add", "--detach", str(scratch / "baseline"), self._commit)
            self._scratch = scratch
        return self._scratch

    def _child(self, item: pytest.Item, tree: Path, rounds: int) -> Child:
        config, scratch = self._config, self._worktree()
        folder = tree / config.invocation_params.dir.resolve().relative_to(self._top)
        job = {
            "top": str(self._top),
            "tree": str(tree),
            "here": str(config.invocation_params.dir) in sys.path,
            "arguments": self._arguments(item, tree),
            "rounds": rounds,
        }
        return Child(job, folder if folder.is_dir() else tree, scratch)

    def _arguments(self, item: pytest.Item, tree: Path) -> list[str]:
        """The test alone, configured as here, in one process."""
        config, there = self._config, tree / self._config.rootpath.relative_to(self._top)
        plugins = config.pluginmanager
        words = ["-q", "-p", "no:cacheprovider", f"--rootdir={there}"]
        name = plugins.get_name(plugins.getplugin(PLUGIN) or plugins.getplugin("llmatrix"))
        words += ["-p", str(name)]
        words += ["-n0"] if plugins.hasplugin("xdist") else []
        words += ["--no-cov"] if plugins.hasplugin("_cov") else []
        if config.inipath and config.inipath.is_relative_to(self._top):
            ini = tree / config.inipath.relative_to(self._top)
            words += ["-c", str(ini)] if ini.is_file() else []
        path = tree / item.path.resolve().relative_to(self._top)
        return [*words, "::".join([str(path), *item.nodeid.split("::")[1:]])]

    def _why(self, old: Child) -> str:
        if old.code in _NOT_FOUND:
            return f"not in {self.name}: nothing to compare with"
        if old.code == 0:
            return f"not gated in {self.name}: nothing to compare with"
        return f"failed in {self.name}, nothing to compare with:\n{old.told()}"


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        told = (done.stderr or done.stdout).strip().splitlines()
        raise UsageError(f"git {' '.join(words)}: {told[-1] if told else 'failed'}")
    return done.stdout.strip()
