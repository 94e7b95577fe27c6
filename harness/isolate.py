"""One cell, one process (or N ranks): started, limited, killed, and its end explained.

The parent only waits (harness/relay.py): it blocks until the cell passes the baton, ends, or has
used up its time.
"""

import json
import os
import shutil
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.cell import Cell
from harness.elastic import Ranks, answered, command
from harness.floors import Needs
from harness.record import Outcome
from harness.server import ForkServer

LOG_TAIL_BYTES = 4000
GENERATIONS = 3  # processes that share the rounds of a timed cell, where nobody says otherwise
_MAX_TIME_S = 1e8  # three years
_MAX_BYTES = 2**60
_OUT_OF_MEMORY = ("std::bad_alloc", "memory allocation of")  # last words of C++ and of Rust


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one cell may use."""

    time_s: float = 1800.0
    memory_bytes: int = 0  # 0: no limit

    def __post_init__(self) -> None:
        if not 0 < self.time_s <= _MAX_TIME_S:
            raise ValueError(
                f"time_limit_s must be above 0 and at most {_MAX_TIME_S:g}, got {self.time_s}"
            )
        if not 0 <= self.memory_bytes <= _MAX_BYTES:
            raise ValueError(
                f"memory_limit_gb must be from 0 (no limit) to {_MAX_BYTES / 1e9:g}, "
                f"got {self.memory_bytes / 1e9:g}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a cell ended and what it left."""

    outcome: Outcome
    reason: str = ""
    log_tail: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)  # name -> number, samples or None
    generations: dict[str, list[int]] = field(default_factory=dict)  # samples of each process
    notes: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, list[float]] = field(default_factory=dict)  # a value a timed round
    needs: dict[str, Needs] = field(default_factory=dict)  # of times, for their floors
    measured_s: float | None = None
    cpu_s: float | None = None
    peak_rss_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where cells run, and what each of their processes may use there."""

    server: ForkServer
    cores: Sequence[int]
    limits: Limits = field(default_factory=Limits)
    ranks: Ranks = "fork"


class InFlight:
    """A cell that the fork server runs: a member of a relay (harness/relay.py)."""

    def __init__(self, cell: Cell, scratch: Path, place: Place, turns: Mapping[str, int]) -> None:
        """`turns` is what the cell is told of its relay (harness/instruments/turns.py)."""
        self._cell = cell
        self._scratch = scratch
        self._place = place
        self._turns = turns
        self._connection: socket.socket | None = None
        self._server_address = ""
        self._oom_kills = 0

    def start(self, address: str) -> None:
        """Ask the server for the cell's processes.

        Raises:
            StoppedError: if the server was closed meanwhile.
        """
        self._oom_kills = _oom_kills()
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        document = {**asdict(self._cell), "turns": {**self._turns, "address": address}}
        (self._scratch / "cell.json").write_text(json.dumps(document))
        scratch, memory_bytes = self._scratch.resolve(), self._place.limits.memory_bytes
        request = {
            "scratch": str(scratch),
            "world": self._cell.world,
            "cores": list(self._place.cores),
            "memory_bytes": memory_bytes,
            "fresh": self._cell.device == "cuda",
            "command": command(self._cell, scratch, memory_bytes, os.environ)
            if self._elastic
            else [],
        }
        self._connection, self._server_address = self._place.server.connect()
        with suppress(ConnectionError):  # the server died: `ending` will find out
            self._connection.sendall(json.dumps(request).encode() + b"\n")

    @property
    def _elastic(self) -> bool:
        return self._cell.world > 1 and self._place.ranks == "elastic"

    def fileno(self) -> int:
        """The connection to the server, which answers when all processes have ended."""
        return self._connected().fileno()

    def kill(self) -> None:
        """End the cell's processes."""
        with suppress(ConnectionError):
            self._connected().sendall(b"kill\n")

    def ending(self, *, timed_out: bool) -> Ending | None:
        """How it ended, once it has; None if its server died under it."""
        with self._connected() as connection:
            try:
                answer = _answer(connection)
            except ConnectionError:
                self._place.server.bury(self._server_address)  # `connect` starts another
                _kill_groups(self._scratch)
                return None
        oom_killed = _oom_kills() > self._oom_kills
        if self._elastic:
            answer = answered(answer, self._cell, self._scratch)
        answer["timed_out"] = timed_out
        limits = self._place.limits
        return _explain(answer, self._cell, self._scratch, limits, oom_killed=oom_killed)

    def _connected(self) -> socket.socket:
        if self._connection is None:
            raise ValueError(f"{self._cell.label} has not been started")
        return self._connection


def _answer(connection: socket.socket) -> dict[str, Any]:
    """The server's line about a cell that has ended.

    Raises:
        ConnectionError: if the server is gone instead.
    """
    received = b""
    while not received.endswith(b"\n"):
        chunk = connection.recv(65536)
        if not chunk:
            raise ConnectionResetError("the fork server is gone")
        received += chunk
    answer: dict[str, Any] = json.loads(received)
    return answer


def _kill_groups(scratch: Path) -> None:
    """End what a cell leaves when its server is killed: its ranks died, not so their children."""
    for path in scratch.glob("group-*"):
        with suppress(ValueError, ProcessLookupError, PermissionError):
            os.killpg(int(path.read_text()), signal.SIGKILL)


def _explain(
    answer: dict[str, Any], cell: Cell, scratch: Path, limits: Limits, *, oom_killed: bool
) -> Ending:
    """Turn exit statuses and result files into an outcome with a reason."""
    used = {"cpu_s": answer["cpu_s"], "peak_rss_bytes": answer["peak_rss_bytes"]}
    results = [_result(scratch / f"result-{rank}.json") for rank in range(cell.world)]
    if all(result.get("outcome") == "ok" for result in results):
        return Ending(
            outcome="ok",
            metrics=results[0]["metrics"],
            notes=results[0]["notes"],
            needs={name: Needs(**needs) for name, needs in results[0].get("needs", {}).items()},
            conditions=results[0]["conditions"],
            measured_s=results[0]["measured_s"],
            **used,
        )
    used["log_tail"] = _log_tail(scratch / "log")
    if answer["timed_out"]:
        return Ending(outcome="timeout", reason=f"ran past {limits.time_s:g} s", **used)
    first = answer["first"]  # the others were ended for it, or failed because it was gone
    prefix = f"rank {first}: " if cell.world > 1 else ""
    result, status = results[first], answer["status"][first]
    if result and result["outcome"] != "ok":
        return Ending(outcome=result["outcome"], reason=prefix + result["reason"], **used)
    if oom_killed and status == -signal.SIGKILL:
        reason = f"{prefix}killed by the system, out of memory"
        return Ending(outcome="oom", reason=reason, **used)
    if limits.memory_bytes and any(words in used["log_tail"] for words in _OUT_OF_MEMORY):
        reason = f"{prefix}past {limits.memory_bytes / 1e9:g} GB of memory, {_describe(status)}"
        return Ending(outcome="oom", reason=reason, **used)
    return Ending(outcome="crashed", reason=prefix + _describe(status), **used)


def _describe(status: int) -> str:
    if status < 0:
        return f"ended by signal {_signal_name(-status)}"
    return f"exited with status {status} before it wrote a result"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names
        return str(number)


def _result(path: Path) -> dict[str, Any]:
    """What the worker wrote, or nothing."""
    try:
        result: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return result


def _log_tail(path: Path) -> str:
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            return log.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def _oom_kills() -> int:
    """How many processes the kernel has killed for memory since boot (0 where it does not say)."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(x.split()[1]) for x in lines if x.startswith("oom_kill ")), 0)
