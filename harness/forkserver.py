"""The warm server that cells are forked from: modules are imported once, a cell costs milliseconds.

Runs as `python -m harness.forkserver SOCKET NAMES`, where NAMES is the JSON of what to import
ahead, `{"suites": [...], "techniques": [...]}`. One connection runs one cell at a time: a JSON line
asks for it, a JSON line answers when all its processes have ended. The server's standard input is
its lifeline: when the parent dies, however it dies, all cells are killed and the server ends. Cells
die with the server too, so nothing outlives its run.

The parent asks for `{"scratch": folder, "world": ranks, "cores": [...], "memory_bytes": limit,
"fresh": bool, "command": [...]}`; a fresh cell starts a new interpreter (CUDA cannot be forked). A
command, if there is one, runs in place of the ranks and starts them. A line `kill` ends the cell
early. The answer is `{"status": [...], "first": rank, "cpu_s": ..., "peak_rss_bytes":
...}`, a status being an exit code or, for a signal, its negative number, and `first` the rank that
failed before the others were ended for it.
"""

import contextlib
import gc
import json
import os
import resource
import selectors
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from harness import worker
from harness.lifeline import adopt_orphans, die_with

_LIFELINE = 0  # file descriptor of standard input
_IMPORT_S = 300  # an import that takes longer hangs: the server ends and one without it begins
_MARK = "LLMATRIX_CELL"  # in the environment of whatever a cell starts


@dataclass
class _Job:
    """A cell in flight: its ranks by process id, and what is known of those that ended."""

    scratch: str
    ranks: dict[int, int] = field(default_factory=dict)
    status: dict[int, int] = field(default_factory=dict)  # exit code by rank, in order of ending
    cpu_s: float = 0.0
    peak_rss_bytes: int = 0

    def kill(self) -> None:
        """End every process of the cell, also those that left its process groups."""
        offspring = [child for pid in self.ranks for child in _descendants(pid)]
        for pid in self.ranks:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        _kill([*offspring, *self._orphans()])

    def _orphans(self) -> Iterator[int]:
        """What ended ranks leave: the kernel makes such processes the server's own children."""
        mark = f"{_MARK}={self.scratch}".encode()
        for pid in _children(os.getpid()):
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    yield pid
                    yield from _descendants(pid)

    def ended(self, pid: int, status: int, usage: resource.struct_rusage) -> None:
        """Note one rank's end; the first that fails takes the others along."""
        code = os.waitstatus_to_exitcode(status)
        self.status[self.ranks[pid]] = code
        self.cpu_s += usage.ru_utime + usage.ru_stime
        self.peak_rss_bytes += usage.ru_maxrss * 1024
        if code != 0 or self.complete:
            self.kill()

    @property
    def complete(self) -> bool:
        return len(self.status) == len(self.ranks)

    def answer(self) -> bytes:
        report = {
            "status": [self.status[rank] for rank in sorted(self.status)],
            "first": next((rank for rank, code in self.status.items() if code), 0),
            "cpu_s": self.cpu_s,
            "peak_rss_bytes": self.peak_rss_bytes,
        }
        return json.dumps(report).encode() + b"\n"


class _Server:
    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.selector = selectors.DefaultSelector()
        self.jobs: dict[socket.socket, _Job] = {}
        self.heard: dict[socket.socket, bytes] = {}  # the line that each connection has begun
        self.wake, wake_up = socket.socketpair()
        self.wake.setblocking(False)
        wake_up.setblocking(False)
        signal.set_wakeup_fd(wake_up.fileno(), warn_on_full_buffer=False)
        self.wake_up = wake_up
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for source in (listener, self.wake, _LIFELINE):
            self.selector.register(source, selectors.EVENT_READ)

    def serve(self) -> None:
        """Until the parent is gone."""
        while True:
            for key, _ in self.selector.select():
                if key.fileobj == _LIFELINE:
                    self.kill_all()
                    return
                if key.fileobj is self.listener:
                    connection, _ = self.listener.accept()
                    self.selector.register(connection, selectors.EVENT_READ)
                elif key.fileobj is self.wake:
                    self.wake.recv(4096)
                    self.reap()
                elif isinstance(key.fileobj, socket.socket):
                    self.hear(key.fileobj)

    def kill_all(self) -> None:
        signal.set_wakeup_fd(-1)  # nobody listens any more
        _kill([*_descendants(os.getpid())])
        for job in self.jobs.values():
            job.kill()

    def hear(self, connection: socket.socket) -> None:
        """Requests, orders to kill, or the end of the connection."""
        try:
            received = connection.recv(65536)
        except ConnectionResetError:
            received = b""
        *lines, rest = (self.heard.pop(connection, b"") + received).split(b"\n")
        for line in lines:
            if line == b"kill":
                self.kill(connection)
            else:
                self.jobs[connection] = self.start(json.loads(line))
        if received:
            self.heard[connection] = rest
        else:
            self.kill(connection)
            self.selector.unregister(connection)
            connection.close()

    def kill(self, connection: socket.socket) -> None:
        if connection in self.jobs:
            self.jobs[connection].kill()

    def start(self, request: dict[str, Any]) -> _Job:
        job = _Job(request["scratch"])
        server = os.getpid()
        for rank in range(1 if request["command"] else request["world"]):
            pid = os.fork()
            if pid == 0:
                _become_cell(request, rank, server)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.setpgid(pid, pid)  # also here: whichever of the two comes first
            job.ranks[pid] = rank
        return job

    def reap(self) -> None:
        """Collect every ended process and answer for the cells that are complete."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for connection, job in list(self.jobs.items()):
                if pid in job.ranks:
                    job.ended(pid, status, usage)
                    if job.complete:
                        del self.jobs[connection]
                        with contextlib.suppress(OSError):
                            connection.sendall(job.answer())


def _children(pid: int) -> Iterator[int]:
    """Child processes, where the kernel lists them (Linux)."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            yield from map(int, path.read_text().split())


def _descendants(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _descendants(child)


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _become_cell(request: dict[str, Any], rank: int, server: int) -> NoReturn:
    """Turn this forked child into one rank of a cell."""
    code = 70  # EX_SOFTWARE: the worker itself broke
    try:
        die_with(server)
        _become_worker(request, rank)
        if request["command"]:
            os.execvp(request["command"][0], request["command"])  # noqa: S606 - as the parent asks
        if request["fresh"]:
            safe = ["-P"] if sys.flags.safe_path else []
            place = [request["scratch"], str(rank)]
            os.execv(  # noqa: S606 - same interpreter, fixed arguments
                sys.executable, [sys.executable, *safe, "-m", "harness.worker", *place]
            )
        code = worker.main(Path(request["scratch"]), rank)
    except BaseException:  # noqa: BLE001 - a child must never go on as a second server
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):  # a full disk takes no more of the log
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _become_worker(request: dict[str, Any], rank: int) -> None:
    """Own process group, own log, own cores, own limits; nothing of the server stays open."""
    os.setpgid(0, 0)
    os.environ[_MARK] = request["scratch"]
    (Path(request["scratch"]) / f"group-{rank}").write_text(str(os.getpid()))
    for number in (signal.SIGINT, signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    log = os.open(Path(request["scratch"]) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.closerange(3, 65536)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request["cores"])
    if not request["command"]:
        limit_memory(request["memory_bytes"])


def limit_memory(more_bytes: int) -> None:
    """Let this process take so much more private memory; 0: as much as there is."""
    if more_bytes:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (_data_in_use() + more_bytes, most))


def _data_in_use() -> int:
    """Bytes of private writable memory, what RLIMIT_DATA counts."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith("VmData:")), 0)


def main() -> None:
    """Import what cells will need, then serve."""
    address, names = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    adopt_orphans()
    ready = os.dup(1)
    os.dup2(2, 1)  # what an import prints is no answer
    signal.alarm(_IMPORT_S)
    worker.warm(**json.loads(names))
    signal.alarm(0)
    gc.freeze()  # forked cells then share these objects' pages
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(256)
    with contextlib.suppress(BrokenPipeError):  # the parent is gone: the lifeline will tell
        os.write(ready, b"ready\n")
    os.close(ready)
    try:
        _Server(listener).serve()
    finally:
        shutil.rmtree(Path(address).parent, ignore_errors=True)


if __name__ == "__main__":
    main()
