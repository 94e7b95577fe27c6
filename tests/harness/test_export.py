"""Records as tables and in trackers, read back with pandas and the trackers' own readers."""

import importlib
import math
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from harness.cell import Cell
from harness.cli import main
from harness.record import Quantity, Record
from harness.shard import identity
from harness.store import Store, cells_to_json


def cell(technique: str = "toys/plain", **setting: Any) -> Cell:
    return Cell(
        suite="speed",
        technique=technique,
        options={"rank": 8, "layers": [1, 2], "bias": None},
        setting={"length": 64, "data": "english", **setting},
        code="c0de",
    )


def record(of: Cell, run: str, **changes: Any) -> Record:
    seconds = Quantity(
        value=2.0,
        unit="s",
        better="lower",
        kind="timing",
        samples=[3.0, 1.0, 2.0],
        low=1.0,
        high=3.0,
        generations=[2, 1],
    )
    fields: dict[str, Any] = {
        "outcome": "ok",
        "metrics": {
            "seconds": seconds,
            "agreement": Quantity(value=None, unit="1", better="higher", kind="quality"),
            "tokens": Quantity(value=7.0, unit="1", better="neither", kind="count"),
        },
        "started": "2026-01-01T00:00:00.000+00:00",
        "wall_s": 1.5,
        "environment": {"commit": "abc", "machine_class": "two cores"},
    }
    return Record(**identity(of, run), **{**fields, **changes})


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs that share a cell; in the second one cell failed, one was skipped, one is stale."""
    monkeypatch.chdir(tmp_path)
    failed = record(cell("toys/broken"), "b", outcome="failed", reason="no", metrics={}, wall_s=0.1)
    skipped = record(cell("toys/absent"), "b", outcome="skipped", reason="needs x", metrics={})
    stale = record(cell("toys/stale"), "b")
    for run, records in {
        "a": [record(cell(), "a")],
        "b": [record(cell(), "b"), failed, skipped, stale],
    }.items():
        store = Store(tmp_path / "results" / run)
        store.create()
        store.write_plan({"cells": cells_to_json([cell(), cell("toys/broken")])})
        for one in records:
            store.write(one)
    return tmp_path / "results"


def test_a_folder_gets_two_tables_of_all_runs(results, capsys):
    assert main(["export", "a", "b", "--to", "tables"]) == 0
    out = capsys.readouterr().out
    assert out == "tables/metrics.parquet\ntables/samples.parquet\n"
    table = pd.read_parquet("tables/metrics.parquet")
    assert table.groupby(["run", "technique"], dropna=False).size().to_dict() == {
        ("a", "toys/plain"): 3,
        ("b", "toys/plain"): 3,
        ("b", "toys/broken"): 1,
        ("b", "toys/absent"): 1,
    }
    row = table[(table.run == "a") & (table.metric == "seconds")].iloc[0]
    assert (row.value, row.low, row.high, row.n) == (2.0, 1.0, 3.0, 3)
    assert (row["setting.length"], row["option.rank"], row["option.layers"]) == (64, 8, "[1, 2]")
    samples = pd.read_parquet("tables/samples.parquet")
    assert samples.run.tolist() == ["a"] * 3 + ["b"] * 3
    assert samples["sample"].tolist() == [3.0, 1.0, 2.0] * 2
    assert samples["index"].tolist() == [0, 1, 2] * 2
    assert samples.generation.tolist() == [0, 0, 1] * 2


def test_what_does_not_apply_is_null_and_never_nan(results):
    assert main(["export", "a", "b", "--to", "all.parquet"]) == 0
    table = pq.read_table("all.parquet")
    values = dict(zip(table["metric"].to_pylist(), table["value"].to_pylist(), strict=True))
    assert values["agreement"] is None
    assert values[None] is None  # the failed cell's row
    numbers = [v for name in ("value", "low", "high") for v in table[name].to_pylist()]
    assert not any(v is not None and math.isnan(v) for v in numbers)


def test_the_types_are_those_that_are_documented(results):
    assert main(["export", "a", "b", "--to", "all.parquet"]) == 0
    kinds = {field.name: str(field.type) for field in pq.read_schema("all.parquet")}
    words = {"large_string": "text", "string": "text"}
    kinds = {name: words.get(kind, kind) for name, kind in kinds.items()}
    documented = importlib.import_module("harness.commands.export").__doc__
    for line in documented.partition("metrics: ")[2].partition("samples: ")[0].splitlines():
        for part in line.split(";") if line.startswith("  ") and "NAME" not in line else ():
            names, _, kind = part.partition(":")
            for name in names.split(","):
                found = name.split("(")[0].strip()
                assert kinds.pop(found) == kind.split(",")[0].strip(), found
    assert all(name.startswith(("setting.", "option.")) for name in kinds), kinds


def test_csv_says_the_same(results):
    assert main(["export", "a", "b", "--to", "deep/all.csv"]) == 0
    assert main(["export", "a", "b", "--to", "all.parquet"]) == 0
    text, binary = pd.read_csv("deep/all.csv"), pd.read_parquet("all.parquet")
    assert list(text.columns) == list(binary.columns)
    for name in ("value", "low", "setting.length"):
        assert text[name].dropna().tolist() == binary[name].dropna().tolist()
    assert len(pd.read_csv("deep/all-samples.csv")) == 6
    assert main(["export", "a", "--to", "tables.2", "--format", "csv"]) == 0
    assert {path.name for path in Path("tables.2").iterdir()} == {"metrics.csv", "samples.csv"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a"], "say where to: --to PATH"),
        (["a", "--to", "x.json"], "a file ends in .parquet or .csv"),
        (["a", "--to", "x.csv", "--format", "parquet"], "no parquet file"),
        (["c", "--to", "x"], "no run 'c'"),
        (["a", "--to", "/proc/no/such"], "cannot write"),
        (["a", "--tensorboard", "/proc/no/such"], "cannot write"),
        (["a", "--to", "x", "--format", "json"], "--format"),
    ],
)
def test_bad_input_is_one_message(results, capsys, words, told):
    assert main(["export", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("sink", "module", "package"),
    [("mlflow", "mlflow", "mlflow-skinny"), ("wandb", "wandb", "wandb"),
     ("tensorboard", "torch.utils.tensorboard", "tensorboard")],
)  # fmt: skip
def test_a_library_that_is_missing_is_named(results, monkeypatch, capsys, sink, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["export", "a", f"--{sink}", "somewhere"]) == 2
    error = capsys.readouterr().err
    assert f"{module} cannot be imported" in error
    assert f"pip install {package}" in error.replace("'", "")


def test_tensorboard_reads_what_was_sent(results):
    pytest.importorskip("tensorboard", exc_type=ImportError)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    for _ in range(2):  # the second replaces the first
        assert main(["export", "a", "b", "--tensorboard", "logs"]) == 0
    folders = sorted(path.name for path in Path("logs/b").iterdir())
    assert [name.rpartition("-")[0] for name in folders] == ["toys-broken", "toys-plain"]
    events = EventAccumulator(f"logs/b/toys-plain-{cell().cell_id}")
    events.Reload()
    assert {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]} == {
        "seconds": 2.0, "seconds.low": 1.0, "seconds.high": 3.0, "tokens": 7.0,
    }  # fmt: skip
    assert len(events.Scalars("seconds")) == 1
    assert events.Histograms("seconds.samples")[0].histogram_value.num == 3
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert start.hparams["setting.length"].number_value == 64
    assert start.hparams["option.layers"].string_value == "[1, 2]"
    assert "option.bias" not in start.hparams


def test_mlflow_reads_what_was_sent(results, tmp_path, monkeypatch, capsys):
    mlflow = pytest.importorskip("mlflow", exc_type=ImportError)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    for new in (3, 0):  # what is there already is left
        assert main(["export", "a", "b", "--mlflow", uri]) == 0
        assert f"{new} new runs" in capsys.readouterr().out
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("b").experiment_id
    runs = {run.data.params["technique"]: run for run in client.search_runs([experiment])}
    assert set(runs) == {"toys/plain", "toys/broken"}
    plain = runs["toys/plain"]
    assert plain.data.metrics == {
        "seconds": 2.0, "seconds.low": 1.0, "seconds.high": 3.0, "tokens": 7.0,
    }  # fmt: skip
    assert plain.data.params["setting.length"] == "64"
    assert plain.data.params["option.layers"] == "[1, 2]"
    assert plain.data.tags["llmatrix.cell_id"] == cell().cell_id
    assert plain.data.tags["llmatrix.commit"] == "abc"
    assert (plain.info.end_time - plain.info.start_time, plain.info.status) == (1500, "FINISHED")
    assert runs["toys/broken"].info.status == "FAILED"
    assert runs["toys/broken"].data.tags["llmatrix.reason"] == "no"


def test_mlflow_that_refuses_is_one_message(results, capsys):
    pytest.importorskip("mlflow", exc_type=ImportError)
    assert main(["export", "a", "--mlflow", "nonsense://x"]) == 2
    error = capsys.readouterr().err
    assert "MLflow at 'nonsense://x' refuses" in error
    assert error.count("\n") == 1


def log_entries(log: bytes) -> Iterator[bytes]:
    """Entries of LevelDB's log format, in which wandb keeps offline runs after 7 bytes of header.

    Blocks of 32 KiB hold fragments: a checksum, a length, a type (1 whole, 2 first, 3 middle, 4
    last), the bytes; less than a fragment's header at a block's end is padding.
    """
    place, whole = 7, b""
    while place + 7 <= len(log):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", log, place + 4)
        whole += log[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


def test_wandb_reads_what_was_sent(results, tmp_path, monkeypatch):
    pytest.importorskip("wandb", exc_type=ImportError)
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    assert main(["export", "b", "--wandb", "project"]) == 0
    found = {}
    for path in tmp_path.glob("wandb/offline-run-*/*.wandb"):
        config, summary, code = {}, {}, None
        for data in log_entries(path.read_bytes()):
            entry = wandb_internal_pb2.Record.FromString(data)
            for item in (*entry.run.config.update, *entry.config.update):
                config[item.key] = item.value_json
            summary |= {item.key: item.value_json for item in entry.summary.update if item.key}
            code = entry.exit.exit_code if entry.WhichOneof("record_type") == "exit" else code
            assert not entry.run.run_id or entry.run.run_group == "b"
        found[config["technique"]] = (config, summary, code)
    assert set(found) == {'"toys/plain"', '"toys/broken"'}
    config, summary, code = found['"toys/plain"']
    assert (config["setting.length"], config["llmatrix.commit"]) == ("64", '"abc"')
    assert {key: float(value) for key, value in summary.items() if not key.startswith("_")} == {
        "seconds": 2.0, "seconds.low": 1.0, "seconds.high": 3.0, "tokens": 7.0,
    }  # fmt: skip
    assert (code, found['"toys/broken"'][2]) == (0, 1)
