"""One run on several machines, launchers and jobs, some of which die: nothing is lost or twice."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import hydra
import psutil
import pytest

from harness.configure import compose
from tests.conftest import SHARD, Trial

WORDS = ("suite=trial", "technique=trial/behave")
MACHINES = ("cpu", "gpu1", "gpu8", "slurm_array", "slurm_multinode")

# A shard as on another machine, whose leases are short.
FAR = f"""
import functools, sys
import harness.lease
harness.lease.Leases = functools.partial(
    harness.lease.Leases, lease_s=1.5, beat_s=0.1, machine=sys.argv.pop()
)
{SHARD}
"""


def shard_on(machine: str, trial: Trial, index: int) -> subprocess.Popen[bytes]:
    return trial._start("-c", FAR, str(trial.store().folder), "1", str(index), "2", machine)


def told(process: subprocess.Popen[bytes], code: int = 0) -> str:
    output = process.communicate(timeout=120)[0].decode()
    assert process.returncode == code, output
    return output


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    parent = psutil.Process(process.pid)
    return [parent, *parent.children(recursive=True)]


def test_machine_that_falls_silent_is_replaced_and_drops_what_it_did(trial: Trial) -> None:
    slow, quick = trial.cell("sleep", 3), [trial.cell("mark", n) for n in range(6)]
    store = trial.prepare([slow, *quick])
    first = shard_on("one", trial, 0)
    trial.until(lambda: store.scratch(slow).exists())
    second = shard_on("another", trial, 1)
    trial.until(lambda: all(store.has(cell.cell_id) for cell in quick))
    stopped = family(first)
    for process in stopped:
        process.suspend()
    told(second)
    kept = {path: path.read_bytes() for path in (store.folder / "cells").iterdir()}
    assert len(kept) == 7
    for process in stopped:
        process.resume()
    told(first)
    assert {path: path.read_bytes() for path in (store.folder / "cells").iterdir()} == kept
    assert sorted(trial.marks()) == list(range(6))
    assert {record.outcome for record in trial.records()} == {"ok"}
    assert not list((store.folder / "claims").iterdir())


def test_runs_of_two_machines_merge_by_copying(trial: Trial) -> None:
    told(trial.start("run", *WORDS, "action=mark", "n=range(0,8)", "run=a"))
    here, there = trial.store().folder, trial.folder / "there"
    shutil.copytree(here, there)
    paths = sorted((here / "cells").iterdir())
    for number, path in enumerate(paths):  # as if each had done half
        (path if number % 2 else there / "cells" / path.name).unlink()
    subprocess.run(["cp", "-ru", f"{there}/.", str(here)], check=True)
    output = told(trial.start("run", "run=a"))
    assert "8 cells, 8 recorded already" in output
    assert "8 ok" in output
    assert len(trial.marks()) == 8
    assert sorted((here / "cells").iterdir()) == paths


def test_newer_record_wins_when_runs_are_copied_together(trial: Trial) -> None:
    told(trial.start("run", *WORDS, "action=mark", "n=0,1", "run=a"))
    here, there = trial.store().folder, trial.folder / "there"
    shutil.copytree(here, there)
    told(trial.start("run", "run=a", "retry=all"))
    kept = {path: path.read_bytes() for path in (here / "cells").iterdir()}
    subprocess.run(["cp", "-ru", f"{there}/.", str(here)], check=True)
    assert {path: path.read_bytes() for path in (here / "cells").iterdir()} == kept


def shards_of(launcher: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The launcher's jobs that have begun to run cells."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(launcher.pid).children(recursive=True)
        servers = [c for c in children if "harness.forkserver" in c.cmdline()]
        return [server.parent() for server in servers]
    return []


def test_cells_of_a_killed_slurm_like_job_are_taken_over_by_the_other(trial: Trial) -> None:
    words = (*WORDS, "action=wait,mark", "size=2", "n=range(0,4)", "run=a", "shards=2")
    launcher = trial.start("run", *words, "hydra/launcher=submitit_local")
    trial.until(lambda: len(shards_of(launcher)) == 2, seconds=60)
    trial.until(lambda: trial.store().in_flight() == 2)
    shards_of(launcher)[0].kill()
    trial.let_go()
    output = told(launcher)
    assert "8 ok" in output
    assert len(trial.records()) == 8
    assert not list((trial.store().folder / "claims").iterdir())


# Slurm's commands: each task of an array is a process of this machine, a moment later.
SLURM = {
    "sbatch": """
import os, re, subprocess, sys
script = open(sys.argv[-1]).read()
os.environ |= {"SLURM_ARRAY_JOB_ID": "41", "SLURM_PROCID": "0"}
for task in range(int(re.search(r"--array=0-([0-9]+)", script)[1]) + 1):
    os.environ |= {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_JOB_ID": str(41 + task)}
    subprocess.Popen(["bash", "-c", f"exec >/dev/null 2>&1; sleep 1; {script}"])
print("Submitted batch job 41")
""",
    "srun": """
import os, sys
command = sys.argv[next(n for n, word in enumerate(sys.argv) if "bin/python" in word):]
os.execv(command[0], command)
""",
    "sacct": "",
}


def test_login_node_without_a_gpu_sends_its_cells_to_nodes_that_have_one(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in SLURM.items():
        path = trial.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!{sys.executable}\n{text}")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{trial.folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    words = (*WORDS, "action=mark", "size=range(0,6)", "run=a", "machine=slurm_array", "shards=2")
    assert "6 ok" in told(trial.start("run", *words))
    assert {record.device for record in trial.records()} == {"cuda"}
    assert sorted(trial.marks()) == list(range(6))
    (script,) = trial.store().folder.glob("hydra/.submitit/41/*.sh")
    assert "#SBATCH --gres=gpu:1\n" in script.read_text()


def test_launcher_whose_jobs_all_die_says_how_to_go_on(trial: Trial) -> None:
    words = (*WORDS, "action=wait", "n=range(0,4)", "run=a", "shards=2")
    launcher = trial.start("run", *words, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    trial.until(lambda: len(shards_of(launcher)) == 2, seconds=60)
    for shard in shards_of(launcher):
        shard.kill()
    output = told(launcher, code=1)
    assert "the launcher's jobs ended, cells missing: 4; go on with: llmatrix run run=a" in output
    trial.let_go()
    assert "4 ok" in told(trial.start("run", "run=a", "workers=4"))


def test_several_launchers_on_one_run_and_kills_leave_what_one_would(trial: Trial) -> None:
    words = (*WORDS, "action=mark", "size=range(0,60)")
    first = trial.start("run", *words, "run=a", "hydra/launcher=joblib", "shards=2")
    trial.until(lambda: (trial.store().folder / "plan.json").exists(), seconds=60)
    second = trial.start("run", *words, "run=a", "workers=2")
    trial.until(lambda: len(list(trial.store().folder.glob("cells/*.json"))) > 5, seconds=60)
    left = family(first)
    for victim in [*shards_of(first)[:1], left[0]]:
        victim.kill()
    told(second)
    for process in left:  # a job that outlived its launcher, and idles
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    first.communicate(timeout=60)
    told(trial.start("run", "run=a", "retry=failed"))
    values = sorted(record.metrics["returned"].value for record in trial.records())
    assert values == list(range(60))
    again = Counter(trial.marks()) - Counter(range(60))
    assert again.total() <= 4  # those in flight when their shard was killed


@pytest.mark.parametrize("machine", MACHINES)
def test_machine_files_compose(machine: str) -> None:
    asked = compose(["suite=parity", "technique=tokenizers/bpe", f"machine={machine}"])
    assert asked.request.device == ("cpu" if machine == "cpu" else "cuda")


@pytest.mark.parametrize(
    "words",
    [
        "machine=slurm_array hydra.launcher.partition=gpu",
        "machine=slurm_array shards=64 hydra.launcher.array_parallelism=64",
        "machine=slurm_array device=cpu hydra.launcher.gres=null",
        "machine=slurm_multinode hydra.launcher.nodes=64",
        "hydra/launcher=joblib shards=4",
        "hydra/launcher=submitit_local shards=2",
    ],
)
def test_what_the_manual_says_composes(words: str) -> None:
    asked = compose(["experiment=quick", "run=x", *words.split()])
    assert asked.execution.run == "x"


def test_every_machine_file_is_tested() -> None:
    folder = Path(__file__).parents[2] / "conf" / "machine"
    assert sorted(path.stem for path in folder.glob("*.yaml")) == sorted(MACHINES)


@pytest.mark.parametrize(
    ("machine", "expected", "shards"),
    [
        ("slurm_array", {"nodes": 1, "gres": "gpu:1", "array_parallelism": 8}, 16),
        ("slurm_multinode", {"nodes": 4, "gpus_per_node": 8, "tasks_per_node": 1}, 1),
    ],
)
def test_slurm_gets_what_a_machine_file_asks(
    machine: str, expected: dict[str, Any], shards: int
) -> None:
    with hydra.initialize_config_module("conf", version_base="1.3"):
        config = hydra.compose("config", [f"machine={machine}"], return_hydra_config=True)
    launcher = config.hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert {key: launcher[key] for key in expected} == expected
    assert config.shards == shards
    changed = ["suite=parity", "technique=tokenizers/bpe", f"machine={machine}", "shards=3"]
    assert compose(changed).execution.shards == 3
