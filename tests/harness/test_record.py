"""A record file: published schema, exact round trip, and refusals that name the place."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError

from harness import record
from harness.record import OUTCOMES, Quantity, Record, RecordError, from_json, to_json

SCHEMA = Path(record.__file__).with_name("record.schema.json")

WHOLE = Record(
    cell_id="0123456789abcdef",
    run="trial-1",
    suite="trial",
    technique="trial/behave",
    options={"size": 1, "names": ["é", "日本"], "none": None},
    setting={"n": 0, "alpha": 0.1},
    code="fedcba9876543210",
    world=1,
    device="cpu",
    command="llmatrix run suite=trial technique=trial/behave",
    outcome="ok",
    metrics={
        "speed": Quantity(
            value=2.0, unit="MB/s", better="higher", kind="timing", samples=[1.0, 2.0], low=1.0
        ),
        "absent": Quantity(value=None, unit="1", better="neither", kind="count"),
    },
    notes={"corpus": {"sha256": "ab"}},
    started="2026-01-01T00:00:00.000+00:00",
    wall_s=1.5,
    measured_s=1.25,
    cpu_s=1.0,
    peak_rss_bytes=2**40,
    environment={"cores": 2},
    load_before=[0.1, 0.2, 0.3],
)


def damaged(**changes):
    return json.dumps({**json.loads(to_json(WHOLE)), **changes}).encode()


def test_the_published_schema_is_the_record_s():
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == record.json_schema()


def test_a_record_survives_its_file():
    assert from_json(to_json(WHOLE)) == WHOLE


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_outcome_satisfies_the_published_schema(outcome):
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads(to_json(replace(WHOLE, outcome=outcome)))
    jsonschema.validate(document, schema)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"schema_version": 3}, "schema_version"),
        ({"cell_id": "short"}, "cell_id"),
        ({"outcome": "fine"}, "outcome"),
        ({"wall_s": "long"}, "wall_s"),
        ({"colour": "red"}, "colour"),
        ({"metrics": {"speed": {"value": 1.0, "unit": "s", "better": "higher"}}}, "speed.kind"),
        (
            {"metrics": {"m": {"value": 1, "unit": "s", "better": "up", "kind": "count"}}},
            "metrics.m.better",
        ),
        ({"load_before": [1.0, None]}, "load_before.1"),
    ],
)
def test_a_damaged_record_is_refused_with_its_place_and_by_the_schema(changes, place):
    with pytest.raises(RecordError) as refusal:
        from_json(damaged(**changes))
    assert place in str(refusal.value).partition(":")[0]
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(damaged(**changes)), schema)


@pytest.mark.parametrize("length", [0, 1, 100, -2])
def test_half_a_record_is_refused(length):
    with pytest.raises(RecordError, match="JSON"):
        from_json(to_json(WHOLE)[:length])


@pytest.mark.parametrize("data", [b"null", b"[]", b'"text"', b"\xff\xfe", b"\x00" * 64])
def test_what_is_no_record_at_all_is_refused(data):
    with pytest.raises(RecordError, match="document"):
        from_json(data)


@pytest.mark.parametrize("key", ["cell_id", "outcome", "command", "started"])
def test_a_missing_key_is_named(key):
    document = json.loads(to_json(WHOLE))
    del document[key]
    with pytest.raises(RecordError, match=f"^{key}: "):
        from_json(json.dumps(document).encode())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(number):
    with pytest.raises(ValidationError, match="finite"):
        Quantity(value=number, unit="s", better="lower", kind="timing")
    with pytest.raises(ValidationError, match="finite"):
        Quantity(value=1.0, unit="s", better="lower", kind="timing", samples=[1.0, number])
    with pytest.raises(RecordError, match=r"^wall_s: "):
        from_json(damaged(wall_s=number))
