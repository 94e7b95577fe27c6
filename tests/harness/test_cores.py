"""Shares are disjoint and equal; a lease held alone excludes all others until its holder ends."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness import cores
from harness.cores import lease, shares

HOLD = """
import sys, time
from harness.cores import lease
with lease([int(c) for c in sys.argv[2:]], alone=sys.argv[1] == "alone"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("usable", "workers", "expected"),
    [
        ([0, 1, 2, 3], 1, [[0, 1, 2, 3]]),
        ([0, 1, 2, 3], 2, [[0, 1], [2, 3]]),
        ([4, 6, 9, 11, 12], 2, [[4, 6], [9, 11]]),
        ([0, 1], 3, [[0], [1], [0]]),
    ],
)
def test_shares(usable: list[int], workers: int, expected: list[list[int]]) -> None:
    assert shares(usable, workers) == expected


def test_no_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        shares([0], 0)


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks that no other test waits for."""
    monkeypatch.setattr(cores.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def hold(how: str, *numbers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, how, *map(str, numbers)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    return holder


@pytest.mark.parametrize(
    ("theirs", "ours", "numbers", "waits"),
    [
        ("shared", "shared", [0, 1], False),
        ("shared", "alone", [0], True),
        ("alone", "shared", [1, 2], True),
        ("alone", "alone", [0, 1], True),
        ("alone", "alone", [2, 3], False),
    ],
)
def test_lease_waits_for_one_held_alone_and_dies_with_its_holder(
    theirs: str, ours: str, numbers: list[int], *, waits: bool
) -> None:
    got = threading.Event()

    def take() -> None:
        with lease(numbers, alone=ours == "alone"):
            got.set()

    with hold(theirs, 0, 1) as holder:
        taker = threading.Thread(target=take)
        taker.start()
        assert got.wait(0.3 if waits else 20) is not waits
        holder.kill()
    taker.join(20)
    assert got.is_set()


def test_lease_alone_is_not_passed_by_those_that_share_and_come_later() -> None:
    got: list[str] = []

    def take(how: str) -> None:
        with lease([0], alone=how == "alone"):
            got.append(how)

    takers = [threading.Thread(target=take, args=[how]) for how in ("alone", "shared")]
    with hold("shared", 0) as holder:
        for taker in takers:
            taker.start()
            time.sleep(0.2)
        assert got == []
        holder.kill()
    for taker in takers:
        taker.join(20)
    assert got == ["alone", "shared"]


def test_leases_of_overlapping_cores_in_any_order_do_not_deadlock() -> None:
    turns = []

    def take(numbers: list[int]) -> None:
        for _ in range(50):
            with lease(numbers, alone=True):
                turns.append(numbers)
                time.sleep(0)

    takers = [threading.Thread(target=take, args=[n]) for n in ([0, 1], [1, 0], [1, 2, 0])]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join(30)
    assert len(turns) == 150
