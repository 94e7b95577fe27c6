"""Records to TensorBoard's event files: a row a cell in HParams, histograms of the samples."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness import sinks
from harness.errors import UsageError
from harness.record import Record


def send(records: Sequence[Record], folder: Path) -> int:
    """Write `folder/RUN/TECHNIQUE-CELL_ID/` for every cell, anew; how many there are.

    Raises:
        UsageError: if TensorBoard is missing or the folder cannot be written.
    """
    tensorboard = sinks.library("torch.utils.tensorboard", "tensorboard")
    chosen = sinks.ran(records)
    try:
        for record in chosen:
            place = folder / record.run / f"{record.technique.replace('/', '-')}-{record.cell_id}"
            shutil.rmtree(place, ignore_errors=True)
            with tensorboard.SummaryWriter(str(place)) as writer:
                _write(writer, record)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}") from error
    return len(chosen)


def _write(writer: Any, record: Record) -> None:
    writer.add_hparams(sinks.parameters(record), sinks.metrics(record), run_name=".")
    for key, text in sinks.tags(record).items():
        writer.add_text(key, text)
    for name, quantity in record.metrics.items():
        if quantity.samples:
            writer.add_histogram(f"{name}.samples", np.array(quantity.samples), bins="auto")
