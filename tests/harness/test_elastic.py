"""Ranks under torch's elastic launcher: on this machine, and on two "nodes" of it."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.cell import Cell
from harness.elastic import Allocation, chosen, command, stands_by
from harness.generations import Course, measure_together
from harness.isolate import Ending, Limits, Place
from harness.server import ForkServer
from tests.conftest import Trial

PLUGINS = os.pathsep.join(
    str(Path(__file__).parents[1] / "fixtures" / name) for name in ("plugin", "odd")
)
CORES = sorted(os.sched_getaffinity(0))
ONE_NODE = {"SLURM_JOB_NUM_NODES": "1"}
TWO_NODES = {
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_CPUS_ON_NODE": "1",
    "SLURMD_NODENAME": "localhost",
}

# Hands its command to the daemon of the "other node", waits for it and passes SIGTERM on; the
# command is no child of it, as with Slurm.
SRUN = """#!{python}
import json, os, signal, socket, sys
words = sys.argv[1:]
while words[0].startswith("--"):
    words.pop(0)
daemon = socket.socket(socket.AF_UNIX)
daemon.connect({address!r})
signal.signal(signal.SIGTERM, lambda *_: daemon.send(b"end\\n"))
daemon.send(json.dumps([words, dict(os.environ)]).encode() + b"\\n")
sys.exit(abs(int(daemon.recv(100))))
"""


class OtherNode:
    """What slurmstepd does: runs commands that are no children of who asked."""

    def __init__(self, folder: Path) -> None:
        self.tasks: list[subprocess.Popen[bytes]] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "node"))
        self.listener.listen()
        script = folder / "srun"
        script.write_text(SRUN.format(python=sys.executable, address=str(folder / "node")))
        script.chmod(0o755)
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self.listener.accept()
                self.run(connection)

    def run(self, connection: socket.socket) -> None:
        with connection, connection.makefile("r") as lines:
            words, environment = json.loads(lines.readline())
            environment = {k: v for k, v in environment.items() if k != "LLMATRIX_CELL"}
            task = subprocess.Popen(words, env={**environment, "SLURM_PROCID": "0"})
            self.tasks.append(task)
            waiting = threading.Thread(target=self.answer, args=[connection, task])
            waiting.start()
            if lines.readline():
                task.terminate()
            waiting.join()

    @staticmethod
    def answer(connection: socket.socket, task: subprocess.Popen[bytes]) -> None:
        status = task.wait()
        with suppress(OSError):
            connection.send(str(status).encode())
            connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for task in self.tasks:
            task.kill()
        self.thread.join(20)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PLUGINS)
        server = ForkServer(suites=["trial"], techniques=["trial/behave"], threads=1)
        yield Place(server=server, cores=CORES, ranks="elastic")
        server.close()


@pytest.fixture
def other_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OtherNode]:
    node = OtherNode(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for key, value in TWO_NODES.items():
        monkeypatch.setenv(key, value)
    server = ForkServer(suites=["trial"], techniques=["trial/behave"], threads=1)
    node.place = Place(server=server, cores=CORES, ranks="elastic")
    monkeypatch.setenv("PYTHONPATH", PLUGINS)
    yield node
    server.close()
    node.close()


def run(place: Place, scratch: Path, cell: Cell, **limits: Any) -> Ending:
    place = replace(place, limits=Limits(**limits))
    (measured,) = measure_together([Course(cell, scratch, place)], generations=1)
    assert measured is not None
    return measured.ending


def cell(action: str, size: int = 1, world: int = 2, device: str = "cpu") -> Cell:
    return Cell(
        suite="trial",
        technique="trial/behave",
        options={"action": action, "size": size},
        setting={"world": world},
        code="0",
        world=world,
        device=device,
    )


def odd(action: str) -> Cell:
    options = {"action": action, "size": 600, "path": ""}
    names = {"suite": "odd", "technique": "odd/behave"}
    return Cell(**names, options=options, setting={"world": 2}, code="0", world=2)


def ranks_of(scratch: Path) -> list[psutil.Process]:
    """Every process that works on the cell."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if words[-3:-1] == ["rank", str(scratch)] and "agent" not in words:
                found.append(process)
    return found


def test_ranks_meet_and_what_they_used_is_told(place: Place, tmp_path: Path) -> None:
    ending = run(place, tmp_path / "scratch", cell("sum_over_ranks"))
    assert ending.outcome == "ok", ending.log_tail
    assert ending.metrics["returned"] == 3.0
    assert ending.cpu_s > 0.1
    assert ending.peak_rss_bytes > 2 * 2**26  # torch is in both


@pytest.mark.parametrize(
    ("failing", "outcome", "reason"),
    [
        (cell("rank_one_fails"), "failed", "rank 1: ValueError: rank 1 has had enough"),
        (odd("rank_one_segfaults"), "crashed", "rank 1: ended by signal SIGSEGV"),
        (odd("rank_one_leaves_reduction"), "failed", "rank 1: ValueError: rank 1 has had enough"),
    ],
    ids=lambda value: value.options["action"] if isinstance(value, Cell) else "",
)
def test_failing_rank_is_named_and_ends_the_others(
    place: Place, tmp_path: Path, failing: Cell, outcome: str, reason: str
) -> None:
    begun = time.monotonic()
    ending = run(place, tmp_path / "scratch", failing)
    assert (ending.outcome, ending.reason) == (outcome, reason), ending.log_tail
    assert time.monotonic() - begun < 45  # rank 0 would sleep for 60 s
    assert "rank 1 has had enough" in ending.log_tail or "Segmentation fault" in ending.log_tail
    assert not ranks_of(tmp_path / "scratch")


def test_ranks_past_their_time_are_ended(place: Place, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    seen: list[int] = []
    watching = threading.Thread(target=lambda: seen.append(until_two(scratch)))
    watching.start()
    ending = run(place, scratch, cell("sleep", 600), time_s=20)
    watching.join()
    assert (ending.outcome, ending.reason) == ("timeout", "ran past 20 s")
    assert seen == [2]
    assert not ranks_of(scratch)


def until_two(scratch: Path) -> int:
    """How many ranks there were, within a time, at most."""
    deadline = time.monotonic() + 19
    while time.monotonic() < deadline and len(ranks_of(scratch)) < 2:
        time.sleep(0.2)
    return len(ranks_of(scratch))


def test_killed_agent_takes_its_ranks_along(place: Place, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"

    def kill() -> None:
        until_two(scratch)
        psutil.Process(ranks_of(scratch)[0].ppid()).kill()

    killing = threading.Thread(target=kill)
    killing.start()
    ending = run(place, scratch, cell("sleep", 600), time_s=60)
    killing.join()
    assert (ending.outcome, ending.reason) == ("crashed", "rank 0: ended by signal SIGKILL")
    psutil.wait_procs(ranks_of(scratch), timeout=10)
    assert not ranks_of(scratch)


def test_memory_limit_is_of_each_rank(place: Place, tmp_path: Path) -> None:
    ending = run(place, tmp_path / "scratch", cell("hog", 600), memory_bytes=200 * 2**20)
    assert (ending.outcome, ending.reason[6:]) == ("oom", ": MemoryError: no message")


def test_ranks_of_two_nodes_meet(other_node: OtherNode, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    ending = run(other_node.place, scratch, cell("sum_over_ranks"))
    assert ending.outcome == "ok", ending.log_tail
    assert ending.metrics["returned"] == 3.0
    assert len(other_node.tasks) == 1
    assert [path.name for path in scratch.glob("group-*")] == ["group-0"]  # rank 0 was here


def test_rank_that_fails_on_another_node_ends_those_here(
    other_node: OtherNode, tmp_path: Path
) -> None:
    begun = time.monotonic()
    ending = run(other_node.place, tmp_path / "scratch", cell("rank_one_fails"))
    assert ending.outcome == "failed", ending.log_tail
    assert ending.reason == "rank 1: ValueError: rank 1 has had enough"
    assert time.monotonic() - begun < 45


def test_ranks_on_another_node_end_when_those_here_are_killed(
    other_node: OtherNode, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    seen: list[int] = []
    watching = threading.Thread(target=lambda: seen.append(until_two(scratch)))
    watching.start()
    ending = run(other_node.place, scratch, cell("sleep", 600), time_s=20)
    watching.join()
    assert ending.outcome == "timeout"
    assert seen == [2]
    (task,) = other_node.tasks
    task.wait(30)  # nobody told it: the meeting place is gone
    assert not ranks_of(scratch)


@pytest.mark.parametrize(
    ("world", "device", "told", "nodes"),
    [
        (8, "cpu", {}, 1),
        (4, "cpu", {"SLURM_JOB_NUM_NODES": "4", "SLURM_CPUS_ON_NODE": "4"}, 1),
        (8, "cpu", {"SLURM_JOB_NUM_NODES": "4", "SLURM_CPUS_ON_NODE": "4"}, 2),
        (6, "cpu", {"SLURM_JOB_NUM_NODES": "4", "SLURM_CPUS_ON_NODE": "4"}, 2),
        (9, "cpu", {"SLURM_JOB_NUM_NODES": "4", "SLURM_CPUS_ON_NODE": "4"}, 3),
        (16, "cuda", {"SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "8"}, 2),
        (512, "cuda", {"SLURM_JOB_NUM_NODES": "64", "SLURM_GPUS_ON_NODE": "8"}, 64),
    ],
)
def test_cell_takes_as_few_nodes_as_have_room(
    world: int, device: str, told: Mapping[str, str], nodes: int
) -> None:
    assert Allocation.of(told).nodes_for(cell("ok", world=world, device=device)) == nodes


def test_world_without_room_is_a_failed_cell(place: Place, tmp_path: Path, monkeypatch) -> None:
    for key, value in TWO_NODES.items():
        monkeypatch.setenv(key, value)
    ending = run(place, tmp_path / "scratch", cell("ok", world=3))
    assert ending.outcome == "failed"
    assert ending.reason == (
        "rank 0: ValueError: world=3 does not divide over at most 2 nodes of 1 cores; "
        "choose another world or a larger allocation"
    )


def test_command_of_a_job_of_two_nodes(tmp_path: Path) -> None:
    environment = {
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "8",
        "SLURMD_NODENAME": "n07",
    }
    words = command(cell("ok", world=16, device="cuda"), tmp_path, 5, environment)
    assert words[-3:-1] == ["-m", "harness.elastic"]
    here, others = json.loads(words[-1])
    launch = others.index("agent")
    *srun, python = others[: others.index("-m")]
    assert " ".join(word for word in srun if word != "-P").startswith(
        "srun --nodes=1 --ntasks=1 --overlap --ntasks-per-node=1 --relative=1"
    )
    assert python in (sys.executable, "-P")
    endpoint = next(word for word in others if word.startswith("--rdzv-endpoint="))
    assert endpoint.startswith("--rdzv-endpoint=n07:")
    assert endpoint in here
    assert others[launch : launch + 3] == ["agent", str(tmp_path), "1"]
    assert here[here.index("agent") + 2] == "0"
    for agent, hosts in ((here, 1), (others, 0)):
        assert f"--rdzv-conf=is_host={hosts}" in agent
        assert {"--nnodes=2", "--nproc-per-node=8", "--max-restarts=0"} <= set(agent)
        assert agent[-5:] == ["-m", "harness.elastic_agent", "rank", str(tmp_path), "5"]


def test_elastic_ranks_run_from_the_command_line(trial: Trial) -> None:
    words = ("suite=trial", "technique=trial/behave", "action=sum_over_ranks", "world=2", "run=a")
    process = trial.start("run", *words, "ranks=elastic")
    output = process.communicate(timeout=120)[0].decode()
    assert process.returncode == 0, output
    (record,) = trial.records()
    assert record.metrics["returned"].value == 3.0
    assert trial.store().read_plan()["ranks"] == "elastic"


@pytest.mark.parametrize(
    ("asked", "told", "expected"),
    [
        (None, {}, "fork"),
        (None, ONE_NODE, "fork"),
        (None, TWO_NODES, "elastic"),
        ("fork", TWO_NODES, "fork"),
        ("elastic", {}, "elastic"),
    ],
)
def test_ranks_are_forked_but_in_a_job_of_several_nodes(
    monkeypatch: pytest.MonkeyPatch, asked: Any, told: Mapping[str, str], expected: str
) -> None:
    monkeypatch.delenv("SLURM_JOB_NUM_NODES", raising=False)
    for key, value in told.items():
        monkeypatch.setenv(key, value)
    assert chosen(asked) == expected


@pytest.mark.parametrize(
    ("task", "world", "expected"), [("0", 2, False), ("1", 2, True), ("1", 1, False)]
)
def test_other_tasks_of_a_job_stand_by_for_cells_that_span_it(
    task: str, world: int, *, expected: bool
) -> None:
    told = {**TWO_NODES, "SLURM_PROCID": task}
    assert stands_by([cell("ok", world=1), cell("ok", world=world)], told) is expected
