"""What runs for a cell under torch's elastic launcher (harness/elastic.py says why).

    python -m harness.elastic_agent agent SCRATCH NODE TORCHRUN_OPTIONS...   starts a node's ranks
    python -m harness.elastic_agent rank SCRATCH MEMORY_BYTES                 is one of them

An agent notes how its ranks failed in `failed-NODE.json`, a rank what it used in `used-RANK.json`.
Ranks are numbered node by node from where the run is, whatever numbers the launcher gives them.
"""

import json
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import torch.distributed.run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from harness import worker
from harness.forkserver import limit_memory
from harness.lifeline import die_with

_AGENT = "LLMATRIX_AGENT"  # process id of a rank's agent
_FIRST = "LLMATRIX_FIRST_RANK"  # of that agent's node


def agent(scratch: Path, node: int, options: Sequence[str]) -> int:
    """Start this node's ranks and see to their end; 1 if one of them failed."""
    if node:
        node += int(os.environ.get("SLURM_PROCID", 0))
    launch = torch.distributed.run.parse_args(list(options))  # type: ignore[no-untyped-call]
    first = node * int(launch.nproc_per_node)
    os.environ.update({_FIRST: str(first), _AGENT: str(os.getpid())})
    try:
        torch.distributed.run.run(launch)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        failed = {first + one.local_rank: one.exitcode for one in error.failures.values()}
        (scratch / f"failed-{node}.json").write_text(json.dumps(failed))
        return 1
    return 0


def rank(scratch: Path, memory_bytes: int) -> int:
    """Be one rank of the cell; 0 if it measured, 1 if it failed."""
    die_with(int(os.environ[_AGENT]))
    first = int(os.environ[_FIRST])
    number = first + int(os.environ["LOCAL_RANK"])
    if first == 0:  # the parent, who is on this node, ends these if all else dies
        (scratch / f"group-{number}").write_text(str(os.getpgrp()))
    limit_memory(memory_bytes)
    code = worker.main(scratch, number)
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    used = {
        "cpu_s": sum(usage.ru_utime + usage.ru_stime for usage in usages),
        "peak_rss_bytes": usages[0].ru_maxrss * 1024,
    }
    (scratch / f"used-{number}.json").write_text(json.dumps(used))
    return code


def main() -> int:
    """Be what the first word says."""
    part, scratch, number, *options = sys.argv[1:]
    if part == "agent":
        return agent(Path(scratch), int(number), options)
    return rank(Path(scratch), int(number))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # as forked ranks do: nothing a cell left behind holds it up
