"""Leases on names, one holder each, in a folder that several machines share.

A lease is a file `NAME.N` that says who holds it. It is made whole under another name and put in
place with a hard link, which fails if the file exists on every file system, so one taker wins; no
lock of the kernel is needed. While it is held, a thread touches it every few seconds. Whoever waits
and sees no touch for long enough by a clock of its own (no two machines' clocks are compared) may
make `NAME.N+1`; so may whoever runs on the holder's machine and finds the holder dead, at once. A
live holder on the same machine is never passed by, however long it is stopped. A holder that was
passed by finds out with `Lease.held`.
"""

import errno
import json
import os
import platform
import random
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from uuid import uuid4

import psutil

BEAT_S = 10.0
LEASE_S = 60.0
_SHORTEST_LOOK_S, _LONGEST_LOOK_S = 0.02, 0.5  # between two looks at another's lease


@cache
def this_machine() -> str:
    """Where process ids mean the same: host, its boot, and its container."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Who holds a lease: a process by its machine, id and start, and which of its leases."""

    machine: str
    pid: int
    started: float
    token: str

    @property
    def alive(self) -> bool:
        """Whether that process still runs; asked on its own machine only."""
        return _started(self.pid) == self.started


@dataclass(frozen=True, kw_only=True, slots=True)
class _Look:
    """A lease's file as it was at one moment."""

    path: Path
    content: bytes
    touched_ns: int

    @property
    def holder(self) -> Holder | None:
        """None if the file does not say."""
        try:
            return Holder(**json.loads(self.content))
        except (ValueError, TypeError):
            return None

    @property
    def still_there(self) -> bool:
        """Whether that holder has it now."""
        now = _look(self.path)
        return now is not None and now.content == self.content


class Lease:
    """One lease as its holder has it."""

    def __init__(self, path: Path, holder: Holder, beat_s: float) -> None:
        self.path = path
        self.holder = holder
        self._ended = Event()
        self._beating = Thread(target=self._beat, args=[beat_s], daemon=True)
        self._beating.start()

    @property
    def held(self) -> bool:
        """Whether nobody has passed us by."""
        return self._ours() and _top(self.path.parent, self.path.stem) == self.path

    def release(self) -> None:
        """Let others have it; nothing happens to a lease that is no longer ours."""
        self._ended.set()
        self._beating.join()
        if self._ours():
            self.path.unlink(missing_ok=True)

    def _ours(self) -> bool:
        seen = _look(self.path)
        return seen is not None and seen.holder == self.holder

    def _beat(self, beat_s: float) -> None:
        with suppress(OSError), self.path.open("rb") as file:  # this file, not a successor's
            while not self._ended.wait(beat_s):
                with suppress(OSError):  # a server that is away for a moment
                    os.utime(file.fileno())


class Leases:
    """The leases in one folder."""

    def __init__(
        self, folder: Path, *, beat_s: float = BEAT_S, lease_s: float = LEASE_S, machine: str = ""
    ) -> None:
        self.folder = folder
        self._beat_s = beat_s
        self._lease_s = lease_s
        self._machine = machine or this_machine()
        self._seen: dict[str, tuple[_Look, float]] = {}  # name -> last change, our time of it

    def take(self, name: str, *, wait_s: float = 0) -> Lease | None:
        """The lease, or None if another holds it all the while.

        Raises:
            OSError: if the folder cannot be written.
        """
        deadline, pause = monotonic() + wait_s, _SHORTEST_LOOK_S
        while (lease := self._try(name)) is None:
            left = deadline - monotonic()
            if left <= 0:
                return None
            sleep(min(left, pause * random.uniform(0.5, 1)))  # two that collide part
            pause = min(_LONGEST_LOOK_S, pause * 1.5)
        return lease

    def abandoned(self, name: str) -> bool:
        """Whether nobody holds it, or nobody who is alive."""
        path = _top(self.folder, name)
        return path is None or self._passable(name, path) is not None

    def _try(self, name: str) -> Lease | None:
        before = _top(self.folder, name)
        passed = None if before is None else self._passable(name, before)
        if before is not None and passed is None:
            return None
        number = 1 if before is None else _number(before) + 1
        holder = Holder(
            machine=self._machine,
            pid=os.getpid(),
            started=_started(os.getpid()) or 0.0,
            token=uuid4().hex,
        )
        path = self.folder / f"{name}.{number}"
        if not _create(path, json.dumps(asdict(holder)).encode()):
            return None
        lease = Lease(path, holder, self._beat_s)
        # Another may have passed the same holder and be done by now: then this one is void.
        if not lease.held or (passed is not None and not passed.still_there):
            lease.release()
            return None
        for older in _all(self.folder, name):
            if _number(older) < number:
                older.unlink(missing_ok=True)
        self._seen.pop(name, None)
        return lease

    def _passable(self, name: str, path: Path) -> _Look | None:
        """The lease as seen, if its holder is dead or has shown no sign of life for too long."""
        look = _look(path)
        if look is None:  # released just now
            return None
        holder = look.holder
        if holder is not None and holder.machine == self._machine:
            return None if holder.alive else look
        last, since = self._seen.setdefault(name, (look, monotonic()))
        if look != last:
            self._seen[name] = (look, monotonic())
            return None
        return look if monotonic() - since > self._lease_s else None


def _look(path: Path) -> _Look | None:
    """The file now, or None if it is gone; opened, as that makes a network file system ask anew."""
    try:
        with path.open("rb") as file:
            touched_ns = os.fstat(file.fileno()).st_mtime_ns
            return _Look(path=path, content=file.read(), touched_ns=touched_ns)
    except OSError:
        return None


def _all(folder: Path, name: str) -> list[Path]:
    return [path for path in folder.glob(f"{name}.*") if path.suffix[1:].isdigit()]


def _top(folder: Path, name: str) -> Path | None:
    return max(_all(folder, name), key=_number, default=None)


def _number(path: Path) -> int:
    return int(path.suffix[1:])


def _create(path: Path, content: bytes) -> bool:
    """Make the file, whole; False if it is there already."""
    whole = path.with_suffix(f".new-{uuid4().hex}")
    whole.write_bytes(content)
    try:
        os.link(whole, path)
    except FileNotFoundError:  # another process tidied up
        return False
    except FileExistsError:  # by our own hand, if a network lost the answer and asked again
        return whole.stat().st_nlink == 2
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        return _create_in_place(path, content)
    finally:
        whole.unlink(missing_ok=True)
    return True


def _create_in_place(path: Path, content: bytes) -> bool:
    """The same where there are no hard links; a reader may see it before it is whole."""
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def _started(pid: int) -> float | None:
    """When a process started, in a unit that setting the clock does not change; None: it ended."""
    if not Path("/proc/self/stat").exists():
        return psutil.Process(pid).create_time() if psutil.pid_exists(pid) else None
    try:
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else float(numbers[18])  # field 22: clock ticks since boot
