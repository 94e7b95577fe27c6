"""Write the records of runs as long tables, or send them to experiment trackers.

  llmatrix export quick other --to tables/          tables/metrics.parquet, samples.parquet
  llmatrix export quick --to quick.csv              quick.csv, quick-samples.csv
  llmatrix export quick --mlflow http://HOST:5000   one MLflow run a cell
  llmatrix export quick --wandb PROJECT             one Weights & Biases run a cell
  llmatrix export quick --tensorboard logs          then: tensorboard --logdir logs

metrics: one row a cell and metric; a cell without metrics (failed, skipped) is one row too.
  run, suite, technique, cell_id, outcome, reason, device: text; world: int64
  setting.NAME, option.NAME: bool, int64, double or text; JSON text where values differ in type
  metric, unit, better, kind: text; value, low, high: double; n (samples): int64
  floor_mfu, bandwidth_share, harness_cpu_share: double, shares; relay: text
  wall_s, measured_s, cpu_s: double, seconds; peak_rss_bytes: int64; started, code, command: text
samples: one row a raw sample.
  run, cell_id, metric: text; index (order taken), generation (process): int64; sample: double

What does not apply is null in both formats (an empty field in CSV); there is no NaN. Records whose
source changed after they were measured and that the run no longer plans are left out.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from harness.errors import UsageError
from harness.record import Record
from harness.report.frame import frame, sample_frame
from harness.run import must_exist
from harness.sinks import mlflow, tensorboard, wandb
from harness.store import Store, cells_from_json

_FORMATS = ("parquet", "csv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a folder of results/")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where runs are kept")
    parser.add_argument("--to", type=Path, metavar="PATH", help="folder, or file .parquet or .csv")
    parser.add_argument("--format", choices=_FORMATS, help="of a folder's tables, else parquet")
    parser.add_argument("--mlflow", metavar="URI", help="of the tracking server or store")
    parser.add_argument("--wandb", metavar="PROJECT", help="project of Weights & Biases")
    parser.add_argument("--tensorboard", type=Path, metavar="DIR", help="folder of event files")


def main(options: argparse.Namespace) -> int:
    """Write and send what is asked for; 0 whatever the records say."""
    if not (options.to or options.mlflow or options.wandb or options.tensorboard):
        raise UsageError(
            "say where to: --to PATH, --mlflow URI, --wandb PROJECT, --tensorboard DIR"
        )
    paths = _paths(options.to, options.format) if options.to else ()
    stores = [must_exist(options.results, run) for run in dict.fromkeys(options.runs)]
    records = [record for store in stores for record in _records(store)]
    if not records:
        raise UsageError(f"there is no record in {', '.join(options.runs)}")
    if paths:
        _write(records, *paths)
        print("\n".join(map(str, paths)))
    if options.mlflow:
        print(f"MLflow: {mlflow.send(records, options.mlflow)} new runs at {options.mlflow}")
    if options.wandb:
        print(f"W&B: {wandb.send(records, options.wandb)} runs in {options.wandb}")
    if options.tensorboard:
        n_cells = tensorboard.send(records, options.tensorboard)
        print(f"TensorBoard: {n_cells} runs in {options.tensorboard}")
    return 0


def _paths(to: Path, form: str | None) -> tuple[Path, Path]:
    """Files of the metrics and of the samples."""
    suffix = to.suffix.removeprefix(".")
    if suffix in _FORMATS and not to.is_dir():
        if form not in (None, suffix):
            raise UsageError(f"--to {to} is no {form} file: leave out --format or name a folder")
        return to, to.with_name(f"{to.stem}-samples{to.suffix}")
    if suffix and not to.is_dir() and form is None:
        raise UsageError(
            f"--to {to}: a file ends in .parquet or .csv; for a folder of this name add --format"
        )
    return to / f"metrics.{form or 'parquet'}", to / f"samples.{form or 'parquet'}"


def _records(store: Store) -> list[Record]:
    """Records of the cells that the run plans, in its order."""
    planned = {c.cell_id: n for n, c in enumerate(cells_from_json(store.read_plan()["cells"]))}
    found, bad = store.records()
    for path, fault in bad.items():
        print(f"left out {path.name}, which is no record ({fault})", file=sys.stderr)
    kept = [r for r in found if r.cell_id in planned or r.outcome == "skipped"]
    return sorted(kept, key=lambda record: planned.get(record.cell_id, len(planned)))


def _write(records: Sequence[Record], metrics: Path, samples: Path) -> None:
    try:
        metrics.parent.mkdir(parents=True, exist_ok=True)
        for table, path in ((frame(records), metrics), (samples_of(records), samples)):
            partial = path.with_name(f".{path.name}.part")
            if path.suffix == ".csv":
                table.to_csv(partial, index=False)
            else:
                table.to_parquet(partial, index=False)
            partial.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {metrics.parent}: {error.strerror}") from error


def samples_of(records: Sequence[Record]) -> pd.DataFrame:
    """One row per raw sample, with the run it is of: runs may share cells."""
    table = sample_frame(records)
    runs = [r.run for r in records for q in r.metrics.values() for _ in q.samples]
    table.insert(0, "run", pd.Series(runs, dtype="string"))
    return table
