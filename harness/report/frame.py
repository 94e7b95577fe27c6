"""Records as data frames: one row per cell and metric, one row per raw sample."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.record import Quantity, Record

_SCALARS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((bool,), "boolean"),
    ((int,), "Int64"),
    ((int, float), "float64"),
    ((str,), "string"),
)
_METRIC = (
    ("metric", "string"),
    ("value", "float64"),
    ("low", "float64"),
    ("high", "float64"),
    ("n", "Int64"),
    ("unit", "string"),
    ("better", "string"),
    ("kind", "string"),
    ("floor_mfu", "float64"),
    ("bandwidth_share", "float64"),
)
_CELL = (
    ("run", "string"),
    ("suite", "string"),
    ("technique", "string"),
    ("cell_id", "string"),
    ("outcome", "string"),
    ("reason", "string"),
    ("device", "string"),
    ("world", "Int64"),
)
_COST = (
    ("wall_s", "float64"),
    ("measured_s", "float64"),
    ("cpu_s", "float64"),
    ("peak_rss_bytes", "Int64"),
    ("relay", "string"),
    ("harness_cpu_share", "float64"),
    ("started", "string"),
    ("code", "string"),
    ("command", "string"),
)


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """One row per cell and metric; a cell without metrics (failed, skipped) is one row too.

    Axes are columns `setting.x`, a technique's fields `option.x`. A column whose values are not
    all of one scalar type holds them as JSON text, so that every column has one type.
    """
    rows = [(record, name, quantity) for record in records for name, quantity in _metrics(record)]
    owners = [record for record, _, _ in rows]
    return pd.DataFrame(
        {
            **{key: _column((getattr(r, key) for r in owners), kind) for key, kind in _CELL},
            **_spread("setting", [record.setting for record in owners]),
            **_spread("option", [record.options for record in owners]),
            **_metric_columns([(name, quantity) for _, name, quantity in rows]),
            **{key: _column((getattr(r, key) for r in owners), kind) for key, kind in _COST},
        }
    )


def sample_frame(records: Sequence[Record]) -> pd.DataFrame:
    """One row per raw sample: cell_id, metric, index (order taken), sample (in the unit).

    The last column, generation, numbers the processes that gave the samples, from 0.
    """
    sampled = [
        (record.cell_id, name, quantity)
        for record in records
        for name, quantity in record.metrics.items()
        if quantity.samples
    ]
    counts = [len(quantity.samples) for _, _, quantity in sampled]
    empty = np.empty(0)
    return pd.DataFrame(
        {
            "cell_id": _repeated([cell for cell, _, _ in sampled], counts),
            "metric": _repeated([name for _, name, _ in sampled], counts),
            "index": np.concatenate([empty, *map(np.arange, counts)]).astype("int64"),
            "sample": np.concatenate([empty, *(quantity.samples for _, _, quantity in sampled)]),
            "generation": np.concatenate([empty, *(_generations(q) for _, _, q in sampled)]).astype(
                "int64"
            ),
        }
    )


def _generations(quantity: Quantity) -> NDArray[np.intp]:
    counts = quantity.generations or [len(quantity.samples)]
    return np.repeat(np.arange(len(counts)), counts)


def _metrics(record: Record) -> Iterable[tuple[str | None, Quantity | None]]:
    return record.metrics.items() or [(None, None)]


def _metric_columns(rows: Sequence[tuple[str | None, Quantity | None]]) -> dict[str, pd.Series]:
    def cells() -> Iterator[tuple[Any, ...]]:
        for name, q in rows:
            if q is None:
                yield (None,) * len(_METRIC)
            else:
                n = len(q.samples) or int(q.value is not None)
                shares = (q.floor.mfu, q.floor.bandwidth_share) if q.floor else (None, None)
                yield (name, q.value, q.low, q.high, n, q.unit, q.better, q.kind, *shares)

    columns = list(zip(*cells(), strict=True)) or [()] * len(_METRIC)
    return {
        key: _column(values, kind) for (key, kind), values in zip(_METRIC, columns, strict=True)
    }


def _spread(prefix: str, mappings: Sequence[Mapping[str, Any]]) -> dict[str, pd.Series]:
    keys = dict.fromkeys(key for mapping in mappings for key in mapping)
    return {f"{prefix}.{key}": _one_type([m.get(key) for m in mappings]) for key in keys}


def _one_type(values: Sequence[Any]) -> pd.Series:
    types = {type(value) for value in values if value is not None}
    for members, kind in _SCALARS:
        if types <= set(members) and not (types == {int} and _exceed_64_bits(values)):
            return _column(values, kind)
    return _column(
        (v if v is None or isinstance(v, str) else json.dumps(v, sort_keys=True) for v in values),
        "string",
    )


def _exceed_64_bits(values: Sequence[int | None]) -> bool:
    return any(value is not None and abs(value) >= 2**63 for value in values)


def _column(values: Iterable[Any], kind: str) -> pd.Series:
    return pd.Series(list(values), dtype=kind)


def _repeated(texts: Sequence[str], counts: list[int]) -> pd.Series:
    return pd.Series(texts, dtype="category").repeat(counts).reset_index(drop=True)
