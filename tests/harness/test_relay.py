"""One baton: members never run at the same time, take equal turns, and end as they end."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from harness.relay import Runner, run_relay

# A member that writes when it worked: sections of rounds, each a little sleep.
MEMBER = """
import json, sys, time
from harness.instruments.turns import Turns
address, name, log, sections, rounds = sys.argv[1:]
turns = Turns(address=address)
def work(what):
    start = time.monotonic()
    time.sleep(0.006)
    with open(log, "a") as file:
        file.write(json.dumps([name, what, start, time.monotonic()]) + "\\n")
for section in range(int(sections)):
    turns.wait("section")
    for n in range(int(rounds)):
        if n:
            turns.wait("round")
        work(section)
    turns.wait("done")
    work("after")
"""


class Process:
    """A member in an interpreter of its own."""

    def __init__(self, folder: Path, name: str, *, source: str = MEMBER, rounds: int = 4) -> None:
        self.arguments = [name, str(folder / "log"), "2", str(rounds)]
        self.source = source
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, address: str) -> None:
        command = [sys.executable, "-c", self.source, address, *self.arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)

    def fileno(self) -> int:
        """Standard output, which ends with the process."""
        assert self.process is not None
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()

    def reap(self) -> int:
        assert self.process is not None
        with self.process as process:
            return process.wait(10)


def run(members: list[Process], **options: object) -> list[Runner]:
    runners = run_relay(members, **{"limit_s": 20.0, "seed": 1, **options})  # type: ignore[arg-type]
    for member in members:
        if member.process is not None:
            member.reap()
    return runners


def worked(folder: Path) -> list[tuple[str, object, float, float]]:
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def test_members_take_turns_and_never_work_at_the_same_time(tmp_path: Path) -> None:
    runners = run([Process(tmp_path, name) for name in "abc"])
    log = worked(tmp_path)
    assert all(begun >= ended for (*_, ended), (_, _, begun, _) in pairwise(log))
    assert len(log) == 3 * 2 * (4 + 1)
    for section in (0, 1):  # every round has each of them once, and no section begins early
        turns = [name for name, what, *_ in log if what == section]
        assert [sorted(turns[n : n + 3]) for n in range(0, 12, 3)] == [["a", "b", "c"]] * 4
    whats = [what for _, what, *_ in log]
    assert whats == [0] * 12 + ["after"] * 3 + [1] * 12 + ["after"] * 3
    assert all(runner.held_s > 0.06 and not runner.timed_out for runner in runners)


def test_order_within_rounds_is_drawn_anew_and_seeded(tmp_path: Path) -> None:
    orders = []
    for number, seed in enumerate((3, 3, 4)):
        folder = tmp_path / str(number)
        folder.mkdir()
        run([Process(folder, name, rounds=8) for name in "ab"], seed=seed)
        orders.append([name for name, what, *_ in worked(folder) if what != "after"])
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != ["a", "b"] * 16


def test_one_that_dies_leaves_the_others_to_go_on(tmp_path: Path) -> None:
    mortal = MEMBER.replace('    work("after")', "    import os; os._exit(7)")
    members = [Process(tmp_path, "a"), Process(tmp_path, "b", source=mortal)]
    assert mortal != MEMBER
    run(members)
    assert [name for name, *_ in worked(tmp_path)].count("a") == 2 * 5
    assert [name for name, *_ in worked(tmp_path)].count("b") == 4


def test_one_that_never_says_a_word_runs_to_its_end(tmp_path: Path) -> None:
    runners = run([Process(tmp_path, "a", source="pass"), Process(tmp_path, "b", rounds=1)])
    assert not any(runner.live or runner.timed_out for runner in runners)
    assert len(worked(tmp_path)) == 4


def test_only_time_with_the_baton_counts_and_who_uses_it_up_is_ended(tmp_path: Path) -> None:
    slow = Process(tmp_path, "slow", source=MEMBER.replace("0.006", "0.3"))
    hung = Process(tmp_path, "hung", source=MEMBER.replace("0.006", "60"))
    runners = run([slow, hung, Process(tmp_path, "quick")], limit_s=9.0)
    assert [runner.timed_out for runner in runners] == [False, True, False]
    assert runners[2].held_s < runners[0].held_s
    assert 3 < runners[0].held_s < 9
    names = [name for name, *_ in worked(tmp_path)]
    assert names.count("quick") == names.count("slow") == 10


def test_who_finds_no_room_is_not_started(tmp_path: Path) -> None:
    members = [Process(tmp_path, name, rounds=1) for name in "abc"]
    room = iter([True, False])
    runners = run(members, admit=lambda: next(room))
    assert [runner.started for runner in runners] == [True, True, False]
    assert {name for name, *_ in worked(tmp_path)} == {"a", "b"}


def test_an_error_at_the_start_of_one_ends_the_others(tmp_path: Path) -> None:
    class Broken(Process):
        def start(self, address: str) -> None:
            raise RuntimeError(f"no room at {Path(address).name}")

    first = Process(tmp_path, "a")
    with pytest.raises(RuntimeError, match="no room at 1"):
        run_relay([first, Broken(tmp_path, "b")], limit_s=20.0, seed=0)
    assert first.reap() != 0


def test_parent_sleeps_while_rounds_are_timed(tmp_path: Path) -> None:
    (runner,) = run([Process(tmp_path, "a", rounds=60)])
    assert runner.timed_s > 0.6
    assert 0 < runner.parent_cpu_s < 0.05 * runner.timed_s
