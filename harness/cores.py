"""Leases on CPU cores, held across processes: a timing cell never shares its cores.

Each core has a lock file in the machine's temporary folder. A timing cell holds its cores alone,
any other cell shares them. A second file gives turns, so that a cell that waits to be alone is not
passed for ever by others that share. The kernel drops a lease when its holder dies.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path


def shares(cores: Sequence[int], workers: int) -> list[list[int]]:
    """Each worker's cores: disjoint equal shares, or one core in turn when workers outnumber them.

    Cores that do not divide evenly stay idle, so that all workers are alike.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    each = max(1, len(cores) // workers)
    return [
        [cores[(worker * each + i) % len(cores)] for i in range(each)] for worker in range(workers)
    ]


@contextmanager
def lease(cores: Sequence[int], *, alone: bool) -> Iterator[None]:
    """Hold the cores, alone or shared, from when they are free until the block ends."""
    with ExitStack() as held:
        for core in sorted(set(cores)):  # one order everywhere, so no two wait for each other
            file = held.enter_context(_lock_file(f"{core}").open("w"))
            with _lock_file(f"{core}-turn").open("w") as turn:
                fcntl.flock(turn, fcntl.LOCK_EX)
                fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def _lock_file(name: str) -> Path:
    folder = Path(tempfile.gettempdir()) / f"llmatrix-cores-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / name
