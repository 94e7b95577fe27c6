"""The Hydra Sweeper: plan once, hand shards to the Launcher, report what came of it.

Stock Hydra composes every cell and loses the later ones when one dies; here a Launcher (basic,
joblib, submitit, Ray) gets a few shards, and each shard runs whatever cells are still missing.
"""

import sys
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from harness.command import override
from harness.configure import Execution, understand
from harness.run import conclude, prepare, run_shard, wait_for_others

ConfigStore.instance().store(
    group="hydra/sweeper",
    name="llmatrix",
    node={"_target_": "hydra_plugins.llmatrix.MatrixSweeper"},
    provider="llmatrix",
)

_ENDED = "the launcher's jobs ended, cells missing: {missing}; go on with: llmatrix run run={run}"


class MatrixSweeper(Sweeper):
    """Expands the matrix itself and launches shards, not cells."""

    config: DictConfig
    hydra_context: HydraContext

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra before `sweep`."""
        self.config = config
        self.hydra_context = hydra_context
        self.task_function = task_function

    def sweep(self, arguments: list[str]) -> None:
        """Run the matrix that the command line asks for.

        Raises:
            UsageError: for bad input.
            SystemExit: 1 if a cell did not end well, 130 if the run was stopped.
        """
        asked = understand(self.config, arguments)
        execution = asked.execution
        whole = True
        try:
            if missing := prepare(asked):
                whole = self._launch(execution, min(execution.shards, missing))
        except KeyboardInterrupt:
            print(f"\nstopped; go on with: llmatrix run run={execution.run}", file=sys.stderr)
            sys.exit(130)
        failed = conclude(execution)
        sys.exit(failed if whole else 1)

    def _launch(self, execution: Execution, shards: int) -> bool:
        """Have the launcher run the shards; whether every cell has its record then."""
        results, run = execution.results, execution.run
        with open_dict(self.config):
            self.config.hydra.sweep.dir = f"{results}/{run}/hydra"
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=self.task_function, config=self.config
        )
        common = [f"results={override(str(results))}", f"run={override(run)}", f"shards={shards}"]
        jobs = [[*common, f"shard={index}"] for index in range(shards)]
        try:
            returned = launcher.launch(jobs, initial_job_idx=0)
        except Exception as error:  # noqa: BLE001 - launchers raise what they like for a dead job
            if missing := wait_for_others(execution):
                print(f"{error}\n{_ENDED.format(missing=missing, run=run)}", file=sys.stderr)
            return not missing
        for job in returned:
            if job.status is not JobStatus.COMPLETED:
                raise job._return_value  # `return_value` would print first
        return True


def shard_task(config: DictConfig) -> None:
    """What a launcher runs: one shard of a run."""
    run_shard(Path(config.results), str(config.run), int(config.shard))
