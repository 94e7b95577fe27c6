"""Records to an MLflow tracking server or store: an experiment a run, a run a cell."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from harness import sinks
from harness.errors import UsageError
from harness.record import Record

_PAGE = 1000
_PACKAGE = "'mlflow-skinny>=3'"


def send(records: Sequence[Record], uri: str) -> int:
    """Log the cells to the tracking URI; how many were new. Those already there are left.

    Raises:
        UsageError: if MLflow is missing or refuses.
    """
    mlflow = sinks.library("mlflow", _PACKAGE)
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        by_run = groupby(sinks.ran(records), key=lambda record: record.run)
        return sum(_send_run(mlflow, client, run, list(cells)) for run, cells in by_run)
    except mlflow.exceptions.MlflowException as error:
        raise UsageError(f"MLflow at {uri!r} refuses: {error}") from error


def _send_run(mlflow: Any, client: Any, run: str, records: Sequence[Record]) -> int:
    found = client.get_experiment_by_name(run)
    experiment = found.experiment_id if found else client.create_experiment(run)
    known = _known(client, experiment)
    new = [r for r in records if (r.cell_id, r.started) not in known]
    for record in new:
        _log(mlflow.entities, client, experiment, record)
    return len(new)


def _known(client: Any, experiment: str) -> set[tuple[str, str]]:
    """Cells that earlier exports logged; one measured again is another."""
    token, known = None, set()
    while True:
        page = client.search_runs([experiment], max_results=_PAGE, page_token=token)
        for run in page:
            tags = run.data.tags
            known.add((tags.get("llmatrix.cell_id", ""), tags.get("llmatrix.started", "")))
        if not (token := page.token):
            return known


def _log(entities: Any, client: Any, experiment: str, record: Record) -> None:
    started = round(1000 * datetime.fromisoformat(record.started).timestamp())
    ended = started + round(1000 * record.wall_s)
    tags = {**sinks.tags(record), "mlflow.runName": sinks.name(record)}
    run = client.create_run(experiment, start_time=started, tags=tags).info.run_id
    client.log_batch(
        run,
        metrics=[
            entities.Metric(key, value, ended, 0) for key, value in sinks.metrics(record).items()
        ],
        params=[entities.Param(key, str(v)) for key, v in sinks.parameters(record).items()],
    )
    client.set_terminated(run, "FINISHED" if record.outcome == "ok" else "FAILED", end_time=ended)
