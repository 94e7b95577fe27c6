"""One holder each, a dead or silent holder's lease passes to one other, and it finds out."""

import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import lease as lease_module
from harness.cell import Cell
from harness.lease import Leases, this_machine
from harness.store import Store

SPAWN = multiprocessing.get_context("spawn")
BEAT_S, LEASE_S = 0.1, 2.0

# Holds a lease as on the machine named, and says whether it still does when asked.
HOLD = """
import sys
from pathlib import Path
from harness.lease import Leases
folder, name, machine, beat_s = sys.argv[1:]
lease = Leases(Path(folder), beat_s=float(beat_s), machine=machine).take(name)
print("held", flush=True)
for _ in sys.stdin:
    print(lease.held, flush=True)
lease.release()
"""


class Other:
    """A process that holds a lease."""

    def __init__(self, folder: Path, machine: str, beat_s: float = BEAT_S) -> None:
        words = [str(folder), "a", machine, str(beat_s)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "held\n"

    @property
    def held(self) -> bool:
        print(file=self.process.stdin, flush=True)
        return self.process.stdout.readline() == "True\n"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@contextmanager
def other(folder: Path, machine: str = "", **options: Any) -> Iterator[Other]:
    holder = Other(folder, machine, **options)
    with holder.process as process:
        try:
            yield holder
        finally:
            process.kill()


def ours(folder: Path, machine: str = "") -> Leases:
    return Leases(folder, beat_s=BEAT_S, lease_s=LEASE_S, machine=machine)


def test_lease_is_one_holders_until_released(tmp_path: Path) -> None:
    first, second = ours(tmp_path), ours(tmp_path)
    lease = first.take("a")
    assert lease.held
    assert not second.abandoned("a")
    assert second.take("a", wait_s=0.1) is None
    assert first.take("a") is None  # not even twice by one process
    assert second.take("ab") is not None
    lease.release()
    assert not lease.held
    assert second.abandoned("a")
    assert second.take("a") is not None


def race(folder: str, seed: int, start: Any) -> None:
    store = Store(Path(folder))
    cells = [cell(n) for n in range(1000)]
    random.Random(seed // 2).shuffle(cells)  # two go the same way, two another
    start.wait(60)
    for one in cells:
        with store.claim(one) as mine:
            if mine:
                with (store.folder / "winners").open("a") as winners:
                    winners.write(f"{one.cell_id}\n")
                store._path(one.cell_id).touch()


def cell(n: int) -> Cell:
    names = {"suite": "trial", "technique": "trial/behave", "code": "0"}
    return Cell(**names, options={}, setting={"n": n})


def test_a_thousand_claims_raced_for_have_one_winner_each(tmp_path: Path) -> None:
    store = Store(tmp_path / "results" / "a")
    store.create()
    start = SPAWN.Event()
    racers = [SPAWN.Process(target=race, args=(str(store.folder), n, start)) for n in range(3)]
    for racer in racers:
        racer.start()
    start.set()
    for racer in racers:
        racer.join(120)
    won = Counter((store.folder / "winners").read_text().split())
    assert won == {cell(n).cell_id: 1 for n in range(1000)}
    assert not list((store.folder / "claims").iterdir())


def test_lease_of_a_killed_process_is_taken_at_once(tmp_path: Path) -> None:
    with other(tmp_path) as holder:
        assert ours(tmp_path).take("a", wait_s=0.1) is None
        holder.process.kill()
        holder.process.wait()
        assert Leases(tmp_path).take("a", wait_s=20) is not None  # a silent one is given 60 s
    assert [path.name for path in tmp_path.iterdir()] == ["a.2"]


def test_killed_process_that_nobody_has_waited_for_is_dead_too(tmp_path: Path) -> None:
    with other(tmp_path) as holder:
        holder.process.kill()  # and is a zombie
        assert Leases(tmp_path).take("a", wait_s=20) is not None


def test_process_id_that_is_anothers_by_now_is_not_the_holder(tmp_path: Path) -> None:
    holder = {"machine": this_machine(), "pid": os.getpid(), "started": 1.0, "token": "x"}
    (tmp_path / "a.1").write_text(json.dumps(holder))
    assert Leases(tmp_path).take("a") is not None


def test_stopped_process_of_this_machine_is_never_passed_by(tmp_path: Path) -> None:
    with other(tmp_path) as holder:
        holder.signal(signal.SIGSTOP)
        assert ours(tmp_path).take("a", wait_s=3 * LEASE_S) is None
        holder.signal(signal.SIGCONT)
        assert holder.held


def test_silent_machine_is_passed_by_and_finds_out(tmp_path: Path) -> None:
    with other(tmp_path, machine="far") as holder:
        leases = ours(tmp_path)
        assert leases.take("a", wait_s=2 * LEASE_S) is None  # it beats
        holder.signal(signal.SIGSTOP)
        begun = time.monotonic()
        lease = leases.take("a", wait_s=20 * LEASE_S)
        assert time.monotonic() - begun > LEASE_S - BEAT_S
        assert lease.held
        holder.signal(signal.SIGCONT)
        assert not holder.held
        time.sleep(3 * BEAT_S)
        holder.process.stdin.close()  # it releases what it no longer has
        holder.process.wait(20)
        assert lease.held


@pytest.mark.parametrize("skew_s", [-1e6, 0, 1e6])
def test_clocks_are_never_compared(tmp_path: Path, skew_s: float) -> None:
    far = Leases(tmp_path, beat_s=1e6, machine="far")
    lease, near = far.take("a"), ours(tmp_path)
    beats = threading.Event()

    def beat() -> None:
        while not beats.wait(BEAT_S):
            moment = time.time() + skew_s
            os.utime(lease.path, (moment, moment))

    beating = threading.Thread(target=beat)
    beating.start()
    assert near.take("a", wait_s=2 * LEASE_S) is None
    beats.set()
    beating.join()
    assert near.take("a", wait_s=20 * LEASE_S) is not None


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "dead"])
def test_one_of_many_that_wait_takes_over(tmp_path: Path, *, silent: bool) -> None:
    for number in range(3 if silent else 5):
        folder = tmp_path / str(number)
        folder.mkdir()
        machine = "far" if silent else this_machine()
        holder = {"machine": machine, "pid": os.getpid(), "started": 1.0, "token": "x"}
        (folder / "a.1").write_text(json.dumps(holder))
        taken: list[Any] = []

        def wait(folder: Path = folder, taken: list[Any] = taken) -> None:
            leases = Leases(folder, lease_s=0.2)
            taken.append(leases.take("a", wait_s=1.0))

        waiters = [threading.Thread(target=wait) for _ in range(8)]
        for waiter in waiters:
            waiter.start()
        for waiter in waiters:
            waiter.join()
        winners = [lease for lease in taken if lease is not None]
        assert len(winners) == 1
        assert winners[0].held


def test_takeover_that_comes_after_anothers_is_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It saw the dead holder's lease; before it acts, another has taken over and is done."""
    holder = {"machine": this_machine(), "pid": os.getpid(), "started": 1.0, "token": "x"}
    (tmp_path / "a.1").write_text(json.dumps(holder))
    late, create = Leases(tmp_path), lease_module._create

    def overtaken(path: Path, content: bytes) -> bool:
        monkeypatch.setattr(lease_module, "_create", create)
        Leases(tmp_path).take("a").release()
        return create(path, content)

    monkeypatch.setattr(lease_module, "_create", overtaken)
    assert late.take("a") is None
    assert not list(tmp_path.iterdir())
    assert late.take("a") is not None


def test_lease_that_does_not_say_whose_it_is_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a.1").write_text('{"machine": ')
    leases = ours(tmp_path)
    assert leases.take("a", wait_s=0.5 * LEASE_S) is None
    assert leases.take("a", wait_s=20 * LEASE_S) is not None


def test_where_there_are_no_hard_links_one_still_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_paths: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(lease_module.os, "link", refused)
    assert Leases(tmp_path).take("a").held
    assert Leases(tmp_path).take("a") is None
    assert [path.name for path in tmp_path.iterdir()] == ["a.1"]


def test_link_whose_answer_was_lost_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def lost(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)  # a network file system asked twice: it is there

    monkeypatch.setattr(lease_module.os, "link", lost)
    assert Leases(tmp_path).take("a").held
    assert Leases(tmp_path).take("a") is None


def test_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Leases(tmp_path / "none").take("a")
