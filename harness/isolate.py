"""One cell, one process (or N ranks): started, limited, killed, and its end explained.

The parent only waits: it blocks on the fork server's answer until the time limit.
"""

import json
import os
import shutil
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from harness.cell import Cell
from harness.record import Outcome
from harness.server import ForkServer

LOG_TAIL_BYTES = 4000
_SERVER_TRIES = 3  # a server that was killed takes cells in flight along; they are tried again
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
    notes: dict[str, Any] = field(default_factory=dict)
    measured_s: float | None = None
    cpu_s: float | None = None
    peak_rss_bytes: int | None = None


def run_cell(
    cell: Cell, server: ForkServer, cores: Sequence[int], limits: Limits, scratch: Path
) -> Ending:
    """Run one cell to its end, whatever that is.

    Raises:
        StoppedError: if the server was closed meanwhile.
    """
    oom_kills = _oom_kills()
    for _ in range(_SERVER_TRIES):
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        (scratch / "cell.json").write_text(json.dumps(asdict(cell)))
        request = {
            "scratch": str(scratch.resolve()),
            "world": cell.world,
            "cores": list(cores),
            "memory_bytes": limits.memory_bytes,
            "fresh": cell.device == "cuda",
        }
        connection, address = server.connect()
        with connection:
            try:
                answer = _ask(connection, request, limits.time_s)
            except ConnectionError:
                server.bury(address)  # it died: `connect` starts another
                _kill_groups(scratch)
                continue
        return _explain(answer, cell, scratch, limits, oom_killed=_oom_kills() > oom_kills)
    return Ending(outcome="crashed", reason=f"its fork server died {_SERVER_TRIES} times")


def _kill_groups(scratch: Path) -> None:
    """End what a cell leaves when its server is killed: its ranks died, not so their children."""
    for path in scratch.glob("group-*"):
        with suppress(ValueError, ProcessLookupError, PermissionError):
            os.killpg(int(path.read_text()), signal.SIGKILL)


def _ask(connection: socket.socket, request: dict[str, Any], time_s: float) -> dict[str, Any]:
    """The server's answer; `timed_out` in it says that the time limit ended the cell."""
    connection.sendall(json.dumps(request).encode() + b"\n")
    deadline = monotonic() + time_s
    received, timed_out = b"", False
    while not received.endswith(b"\n"):
        connection.settimeout(None if timed_out else max(0.001, deadline - monotonic()))
        try:
            chunk = connection.recv(65536)
        except TimeoutError:
            timed_out = True
            connection.sendall(b"kill\n")
            continue
        if not chunk:
            raise ConnectionResetError("the fork server is gone")
        received += chunk
    answer: dict[str, Any] = json.loads(received)
    return {**answer, "timed_out": timed_out}


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
