"""Cells measured together: fresh processes, turns, and what several generations add up to."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import generations, yardstick
from harness.generations import Course, measure_together, merged
from harness.isolate import Ending, Limits, Place
from harness.server import ForkServer

CORES = sorted(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer(threads=1)
    yield server
    server.close()


def courses(server: ForkServer, folder: Path, *parts: int, time_s: float = 60.0) -> list[Course]:
    place = Place(server=server, cores=CORES, limits=Limits(time_s=time_s))
    cells = [yardstick.cell(parts=n, rounds=6, name=str(index)) for index, n in enumerate(parts)]
    return [Course(cell, folder / cell.cell_id, place) for cell in cells]


def test_generations_share_the_rounds_and_are_told_apart(
    server: ForkServer, tmp_path: Path
) -> None:
    first, second = measure_together(courses(server, tmp_path, 20, 20), generations=3)
    assert first is not None
    assert second is not None
    for measured in (first, second):
        assert measured.ending.outcome == "ok"
        assert len(measured.ending.metrics["call_ms"]) == 6
        assert measured.ending.generations == {"call_ms": [2, 2, 2]}
        assert {len(values) for values in measured.ending.conditions.values()} == {6}
        assert measured.harness_cpu_share is not None
        assert 0 < measured.harness_cpu_share < 0.5
    assert first.relay == second.relay != ""


def test_rounds_that_do_not_divide_are_not_fewer_than_asked(
    server: ForkServer, tmp_path: Path
) -> None:
    (measured,) = measure_together(courses(server, tmp_path, 5), generations=4)
    assert measured is not None
    assert measured.ending.generations == {"call_ms": [2, 2, 2, 2]}
    assert measured.relay == ""


def test_more_work_takes_as_much_more_time(server: ForkServer, tmp_path: Path) -> None:
    double, single = measure_together(courses(server, tmp_path, 400, 200), generations=2)
    assert double is not None
    assert single is not None
    ratio = min(double.ending.metrics["call_ms"]) / min(single.ending.metrics["call_ms"])
    assert 1.5 < ratio < 2.7


def test_one_that_uses_up_its_time_leaves_the_others_whole(
    server: ForkServer, tmp_path: Path
) -> None:
    slow, quick = measure_together(
        courses(server, tmp_path, 1_000_000, 5, time_s=3.0), generations=2
    )
    assert slow is not None
    assert quick is not None
    assert (slow.ending.outcome, slow.ending.reason) == ("timeout", "ran past 3 s")
    assert quick.ending.outcome == "ok"
    assert len(quick.ending.metrics["call_ms"]) == 6


def test_no_room_beside_the_others_is_told(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "_has_room", lambda: False)
    first, second = measure_together(courses(server, tmp_path, 5, 5), generations=1)
    assert first is not None
    assert first.relay == ""
    assert second is None


def ending(**values: object) -> Ending:
    return Ending(outcome="ok", measured_s=1.0, cpu_s=2.0, peak_rss_bytes=10, **values)  # type: ignore[arg-type]


def test_numbers_that_agree_stay_numbers_and_others_become_samples() -> None:
    whole = merged(
        [
            ending(metrics={"count": 3.0, "peak": 10.0, "ms": [1.0, 2.0], "none": None}),
            ending(metrics={"count": 3.0, "peak": 12.0, "ms": [3.0], "none": None}),
        ]
    )
    assert whole.metrics == {
        "count": 3.0,
        "peak": [10.0, 12.0],
        "ms": [1.0, 2.0, 3.0],
        "none": None,
    }
    assert whole.generations == {"peak": [1, 1], "ms": [2, 1]}
    assert (whole.measured_s, whole.cpu_s, whole.peak_rss_bytes) == (2.0, 4.0, 10)


def test_first_generation_that_failed_is_the_ending() -> None:
    bad = Ending(outcome="oom", reason="too much")
    assert merged([ending(metrics={"n": 1.0}), bad, ending()]) == bad
