"""Records to Weights & Biases: a run a cell, grouped by the run they belong to.

Where the data goes is the library's to decide: `wandb login`, or `WANDB_MODE=offline` for files in
`WANDB_DIR` that `wandb sync` sends later.
"""

from collections.abc import Sequence

from harness import sinks
from harness.cell import digest
from harness.errors import UsageError
from harness.record import Record


def send(records: Sequence[Record], project: str) -> int:
    """Log the cells to the project; how many. A cell sent before is replaced.

    Raises:
        UsageError: if wandb is missing or refuses.
    """
    wandb = sinks.library("wandb", "wandb")
    chosen = sinks.ran(records)
    try:
        for record in chosen:
            run = wandb.init(
                project=project,
                id=digest([record.run, record.cell_id]),
                name=sinks.name(record),
                group=record.run,
                job_type=record.suite,
                tags=[record.outcome],
                config={**sinks.parameters(record), **sinks.tags(record)},
                settings=wandb.Settings(silent=True, console="off", disable_git=True),
            )
            run.summary.update(sinks.metrics(record))
            run.finish(exit_code=int(record.outcome != "ok"))
    except wandb.errors.Error as error:
        raise UsageError(f"wandb refuses project {project!r}: {error}") from error
    return len(chosen)
