"""How long it took before says how long it will take; what cannot be read is left out."""

import json

import pytest

from harness.cell import Cell
from harness.estimate import estimate_s, told_time


def cell(technique="f/known", **setting):
    return Cell(suite="s", technique=technique, options={}, setting=setting, code="c")


def write(results, name, **changes):
    folder = results / "run" / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    record = {"suite": "s", "technique": "f/known", "outcome": "ok", "wall_s": 1.0}
    record |= {"options": {}, "setting": {}, **changes}
    (folder / f"{name}.json").write_text(json.dumps(record))


def test_a_cell_takes_the_median_of_what_its_kind_took(tmp_path):
    for n, seconds in enumerate([1.0, 2.0, 30.0]):
        write(tmp_path, n, wall_s=seconds)
    assert estimate_s(tmp_path, [cell(), cell(), cell("f/new")]) == (4.0, 1)


def test_the_same_setting_is_asked_before_others(tmp_path):
    write(tmp_path, "small", wall_s=1.0, setting={"n": 1})
    write(tmp_path, "large", wall_s=50.0, setting={"n": 9})
    assert estimate_s(tmp_path, [cell(n=9), cell(n=9), cell(n=1)]) == (101.0, 0)
    assert estimate_s(tmp_path, [cell(n=5)]) == (25.5, 0)


def test_failures_and_damaged_files_are_left_out(tmp_path):
    write(tmp_path, "good")
    write(tmp_path, "failed", outcome="failed", wall_s=100.0)
    (tmp_path / "run" / "cells" / "half.json").write_text('{"suite": "s"')
    (tmp_path / "run" / "cells" / "list.json").write_text("[]")
    assert estimate_s(tmp_path, [cell()]) == (1.0, 0)


def test_without_results_nothing_is_known(tmp_path):
    assert estimate_s(tmp_path / "absent", [cell()]) == (0, 1)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3600, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_times_are_told_in_two_units(seconds, told):
    assert told_time(seconds) == told
