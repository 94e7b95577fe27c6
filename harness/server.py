"""The parent's end of the fork server (harness/forkserver.py): started, connected to, ended."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from harness.errors import UsageError

_CLOSING_S = 10.0  # a server that has not ended by then is killed
_HANGING_UP_S = 1.0  # likewise one whose connections have ended already
_PATIENCE = 12  # for ends at start: a kill uses one of it, an end of its own three


class StoppedError(Exception):
    """The run was stopped while the cell was in flight."""


class ForkServer:
    """A warm server process (harness/forkserver.py) and the connections to it."""

    def __init__(
        self,
        *,
        suites: Sequence[str] = (),
        techniques: Sequence[str] = (),
        threads: int,
        sources: Path | None = None,
    ) -> None:
        """`sources` is a folder of packages that go before those of this process."""
        self._sources = sources
        self._names = {"suites": list(suites), "techniques": list(techniques)}
        self._threads = threads
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._address = ""
        self._closed = False

    def connect(self) -> tuple[socket.socket, str]:
        """A connection to the server, started if it is not running, and the server's address.

        Raises:
            StoppedError: after `close`.
            UsageError: if it does not start.
        """
        with self._lock:
            for _ in range(_PATIENCE):
                self._start()
                with suppress(ConnectionError):  # it was killed just now
                    return _connection(self._address), self._address
                self._end(_HANGING_UP_S)
            raise UsageError(f"the fork server of the cells was killed {_PATIENCE} times in a row")

    def start(self) -> None:
        """Have a server that is ready, so that no cell's time counts what it imports.

        Raises:
            StoppedError: after `close`.
            UsageError: if it does not start.
        """
        with self._lock:
            self._start()

    def _start(self) -> None:
        if self._closed:
            raise StoppedError
        if self._process is not None and self._process.poll() is None:
            return
        used = 0
        while (status := self._launch(self._names if used < _PATIENCE / 2 else {})) is not None:
            used += 1 if status == -signal.SIGKILL else 3  # an import may end the process
            if used >= _PATIENCE:
                raise UsageError(
                    "the fork server of the cells ends at its start, again and again: "
                    f"{_described(status)}"
                )

    def _launch(self, names: dict[str, list[str]]) -> int | None:
        """Start a server and wait until it is ready; its exit status if it ended instead."""
        self._end(0)
        folder = tempfile.mkdtemp(prefix="llmatrix-")
        self._address = f"{folder}/server"
        threads = str(self._threads)
        safe = [] if {"", str(Path.cwd())} & set(sys.path) else ["-P"]  # the same path as ours
        if self._sources:
            safe = ["-P"]
        command = [sys.executable, *safe, "-m", "harness.forkserver"]
        self._process = subprocess.Popen(
            [*command, self._address, json.dumps(names)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # ctrl-C is the parent's to handle
            env={
                **environment_with(self._sources),
                "OMP_NUM_THREADS": threads,
                "OPENBLAS_NUM_THREADS": threads,
            },
        )
        if _pipe(self._process.stdout).readline() == b"ready\n":
            return None
        return self._process.wait()

    def _end(self, patience_s: float) -> None:
        """End the server if there is one, by force if it takes longer, and clear up after it."""
        if self._process is None:
            return
        with self._process as process:  # closes its pipes
            _pipe(process.stdin).close()
            try:
                process.wait(patience_s)
            except subprocess.TimeoutExpired:
                process.kill()
        self._process = None
        shutil.rmtree(Path(self._address).parent, ignore_errors=True)

    def bury(self, address: str) -> None:
        """See to the end of a server that hung up, unless another has taken its place."""
        with self._lock:
            if self._address == address:
                self._end(_HANGING_UP_S)

    @property
    def pid(self) -> int | None:
        """Process id of the server, if one runs."""
        return self._process.pid if self._process else None

    def close(self) -> None:
        """End the server and with it every cell in flight."""
        with self._lock:
            self._closed = True
            self._end(_CLOSING_S)


def environment_with(sources: Path | None) -> dict[str, str]:
    """This process's environment, in which Python finds the packages in `sources` first."""
    if sources is None:
        return dict(os.environ)
    path = os.pathsep.join([str(sources), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


def python() -> list[str]:
    """The interpreter, as it finds modules in the same places as ours."""
    safe = [] if {"", str(Path.cwd())} & set(sys.path) else ["-P"]
    return [sys.executable, *safe]


def _connection(address: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
    except OSError as error:
        connection.close()
        raise ConnectionError("the fork server does not answer") from error
    return connection


def _described(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"it exited with status {status}"


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    """The stream, which for the type checker alone might be none."""
    if stream is None:
        raise ValueError("the fork server was started without a pipe")
    return stream
