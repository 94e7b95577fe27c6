"""Cells whose ranks torch's elastic launcher starts: on this machine, or on a Slurm job's nodes.

On one node the fork server runs `torch.distributed.run` in place of the ranks it would fork. When a
cell needs more ranks than a node has room for, the agent of this node runs beside `srun`, which
starts one on each other node; `python -m harness.elastic JSON` runs the two. Ranks meet over c10d,
which this node's agent keeps: rank 0 is here, and the other agents end when this one does.
harness/elastic_agent.py is what runs there.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self
from uuid import uuid4

from harness.cell import Cell
from harness.lifeline import die_with
from harness.server import python

_ENDING_S = 10.0
Ranks = Literal["fork", "elastic"]

_SRUN = (
    "--overlap", "--ntasks-per-node=1", "--relative=1", "--cpu-bind=none", "--kill-on-bad-exit=1",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Allocation:
    """The nodes that a job may use, as Slurm tells in environment variables."""

    nodes: int = 1
    host: str = "localhost"
    cpus: int = 0  # of each node; 0: not told
    gpus: int = 0

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """The allocation we are in; one node outside Slurm."""
        return cls(
            nodes=int(environment.get("SLURM_JOB_NUM_NODES", 1)),
            host=environment.get("SLURMD_NODENAME") or socket.gethostname(),
            cpus=int(environment.get("SLURM_CPUS_ON_NODE", 0)),
            gpus=int(environment.get("SLURM_GPUS_ON_NODE", 0)),
        )

    def nodes_for(self, cell: Cell) -> int:
        """How many nodes the cell's ranks take: as few as have room, each with as many ranks.

        Raises:
            ValueError: if they do not fit, or not evenly.
        """
        room = (self.gpus if cell.device == "cuda" else self.cpus) or cell.world
        for nodes in range(1, self.nodes + 1):
            if cell.world % nodes == 0 and cell.world // nodes <= room:
                return nodes
        each = "GPUs" if cell.device == "cuda" else "cores"
        raise ValueError(
            f"world={cell.world} does not divide over at most {self.nodes} nodes of {room} {each}; "
            "choose another world or a larger allocation"
        )


def chosen(ranks: Ranks | None) -> Ranks:
    """What was asked for; else `elastic` in a job of several nodes."""
    return ranks or ("elastic" if Allocation.of(os.environ).nodes > 1 else "fork")


def stands_by(cells: Sequence[Cell], environment: Mapping[str, str]) -> bool:
    """Whether this task of a job leaves its node to cells that the job's first task starts."""
    if int(environment.get("SLURM_PROCID", 0)) == 0:
        return False
    allocation = Allocation.of(environment)
    return allocation.nodes > 1 and any(
        cell.world > 1 and allocation.nodes_for(cell) > 1 for cell in cells
    )


def command(
    cell: Cell, scratch: Path, memory_bytes: int, environment: Mapping[str, str]
) -> list[str]:
    """What the fork server is to run for a cell: the elastic agent, or this node's and the others'.

    A cell for which the job has no room fails, with that as its result.
    """
    allocation = Allocation.of(environment)
    try:
        nodes = allocation.nodes_for(cell)
    except ValueError as error:
        result = {"outcome": "failed", "reason": f"ValueError: {error}"}
        (scratch / "result-0.json").write_text(json.dumps(result))
        return ["false"]
    here = [*python(), "-m", "harness.elastic_agent"]
    launch = [f"--nproc-per-node={cell.world // nodes}", "--max-restarts=0"]
    worker = ["-m", "harness.elastic_agent", "rank", str(scratch), str(memory_bytes)]
    if nodes == 1:
        return [*here, "agent", str(scratch), "0", "--standalone", *launch, *worker]
    meeting = [
        f"--nnodes={nodes}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={allocation.host}:{_free_port()}",
        f"--rdzv-id={uuid4().hex}",
    ]
    first = [*here, "agent", str(scratch), "0", *meeting, "--rdzv-conf=is_host=1", *launch, *worker]
    other = [*here, "agent", str(scratch), "1", *meeting, "--rdzv-conf=is_host=0", *launch, *worker]
    others = ["srun", f"--nodes={nodes - 1}", f"--ntasks={nodes - 1}", *_SRUN, *other]
    return [*python(), "-m", "harness.elastic", json.dumps([first, others])]


def answered(answer: Mapping[str, Any], cell: Cell, scratch: Path) -> dict[str, Any]:
    """The fork server's answer about an agent, as if it had run the ranks themselves."""
    notes = [json.loads(path.read_bytes()) for path in scratch.glob("failed-*.json")]
    failed = {int(rank): code for note in notes for rank, code in note.items()}
    used = [json.loads(path.read_bytes()) for path in scratch.glob("used-*.json")]
    (agent,) = answer["status"]
    return {
        **answer,
        "status": [failed.get(rank, agent) for rank in range(cell.world)],
        "first": min(failed, key=lambda rank: _place(scratch, rank, failed[rank]), default=0),
        "cpu_s": sum(one["cpu_s"] for one in used) or answer["cpu_s"],
        "peak_rss_bytes": sum(one["peak_rss_bytes"] for one in used) or answer["peak_rss_bytes"],
    }


def _place(scratch: Path, rank: int, status: int) -> tuple[bool, float]:
    """Where a rank comes among those that failed: by when it wrote so, first who could not write.

    Those that an agent ended because of others come last.
    """
    result = scratch / f"result-{rank}.json"
    return status == -signal.SIGTERM, result.stat().st_mtime if result.exists() else 0.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
    return port


def together(commands: Sequence[Sequence[str]]) -> int:
    """Run the commands until all end well or one does not, which ends the others; its status."""
    ends = (signal.SIGKILL, signal.SIGTERM)  # the first is ours; `srun` passes a signal on
    running = {}
    for command, number in zip(commands, ends, strict=True):
        dying = partial(die_with, os.getpid(), number)
        process = subprocess.Popen(command, preexec_fn=dying)
        running[process.pid] = process
    status = 0
    while running and status == 0:
        pid, ended = os.wait()
        if running.pop(pid, None):
            status = os.waitstatus_to_exitcode(ended)
    for process in running.values():
        process.terminate()
    for process in running.values():
        with suppress(subprocess.TimeoutExpired):
            process.wait(_ENDING_S)
        process.kill()
    return abs(status)


if __name__ == "__main__":
    sys.exit(together(json.loads(sys.argv[1])))
