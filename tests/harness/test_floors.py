"""Floors: the roofline in numbers, and five ways to cheat, four of which it finds."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from harness.artifacts import Artifacts
from harness.card import Metric, Suite
from harness.ceilings import Ceiling, CeilingError, Site
from harness.floors import Needs, check, floor, floors, with_floors
from harness.instruments.clock import Clock
from harness.record import Floor, Quantity, Record

MACHINE = Ceiling(flops=1e9, bandwidth=1e8, cache_bytes=1000)


def quantity(*samples: float, unit: str = "s", value: float | None = None) -> Quantity:
    return Quantity(
        value=value, unit=unit, better="lower", kind="timing", samples=list(samples)
    )  # fmt: skip


def test_the_shares_are_those_of_the_ceilings():
    found = floor(np.array([2.0, 2.0, 2.0]), Needs(flops=1e9, bytes=5e7), MACHINE)
    assert (found.flops, found.bytes, found.seconds) == (1e9, 5e7, 1.0)
    assert (found.mfu, found.bandwidth_share) == (0.5, 0.25)
    assert not found.impossible


def test_the_floor_is_the_longer_of_the_two():
    assert floor(np.array([9.0]), Needs(flops=1e9, bytes=5e8), MACHINE).seconds == 5.0


@pytest.mark.parametrize(
    ("seconds", "needs", "impossible"),
    [
        (0.81, Needs(flops=1e9), False),
        (0.79, Needs(flops=1e9), True),
        (0.51, Needs(bytes=1e8), False),
        (0.49, Needs(bytes=1e8), True),
        (1e-6, Needs(bytes=2000), False),  # may have stayed in the cache
        (1e-6, Needs(bytes=2001), True),
        (0.0, Needs(flops=1e9), True),
    ],
)
def test_well_below_the_floor_is_impossible(seconds, needs, impossible):
    found = floor(np.array([seconds] * 3), needs, MACHINE)
    assert found.impossible is impossible
    assert np.isfinite([found.mfu, found.bandwidth_share]).all()


def test_bytes_that_fit_the_cache_are_no_floor():
    assert floor(np.array([1.0]), Needs(bytes=2000), MACHINE).seconds == 0.0


def test_a_single_low_sample_does_not_make_it_impossible():
    samples = np.array([1.2] * 9 + [0.1])
    assert not floor(samples, Needs(flops=1e9), MACHINE).impossible


@pytest.mark.parametrize(("unit", "scale"), [("s", 1.0), ("ms", 1e3), ("us", 1e6)])
def test_units_of_time_are_understood(unit, scale):
    taken = {"t": quantity(2 * scale, 2 * scale, unit=unit)}
    found = floors({"t": Needs(flops=1e9)}, taken, lambda dtype, looks: MACHINE)
    assert found["t"].mfu == pytest.approx(0.5)


def test_a_time_without_value_has_no_floor_and_one_number_has_one():
    needs = {"none": Needs(flops=1e9), "one": Needs(flops=1e9)}
    taken = {"none": quantity(), "one": quantity(value=4.0)}
    found = floors(needs, taken, lambda dtype, looks: MACHINE)
    assert {name: one.mfu for name, one in found.items()} == {"one": 0.25}


def test_before_a_result_is_called_impossible_there_is_a_second_look():
    looked = []

    def ceiling_of(dtype: str, looks: int) -> Ceiling:
        looked.append((dtype, looks))
        return Ceiling(flops=looks * 1e9, bandwidth=1e8, cache_bytes=1000)

    needs = {
        "fine": Needs(flops=1e9),
        "doubted": Needs(flops=1e9, dtype="bfloat16"),
        "false": Needs(flops=1e9, dtype="float64"),
    }
    taken = {"fine": quantity(1.0), "doubted": quantity(0.6), "false": quantity(0.3)}
    found = floors(needs, taken, ceiling_of)
    assert {name: one.impossible for name, one in found.items()} == {
        "fine": False,
        "doubted": False,
        "false": True,
    }
    assert looked == [
        ("float32", 1), ("bfloat16", 1), ("bfloat16", 2), ("float64", 1), ("float64", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"flops": 1.0, "dtype": "int3"}, "dtype must be one of .*, got 'int3'"),
        ({"flops": -1.0, "bytes": 5.0}, "at least 0, .* got -1.0 and 5.0"),
        ({}, "one of them above it, got 0.0 and 0.0"),
        ({"flops": float("nan")}, "got nan and 0.0"),
    ],
)
def test_needs_that_cannot_be_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Needs(**wrong)


def test_only_times_of_the_suite_have_needs():
    suite = Suite(
        title="t", question="q", families=("f",), baseline="f/b",
        metrics=(
            Metric(name="time_ms", unit="ms", better="lower", kind="timing"),
            Metric(name="speed", unit="MB/s", better="higher", kind="timing"),
        ),
    )  # fmt: skip
    check({"time_ms": Needs(flops=1)}, suite)
    for name in ("speed", "missing"):
        with pytest.raises(ValueError, match=f"{name} is no time of this suite.*times: time_ms"):
            check({name: Needs(flops=1)}, suite)


@pytest.fixture
def record() -> Record:
    return Record(
        cell_id="0" * 16, run="r", suite="s", technique="t/t", options={}, setting={}, code="0",
        world=2, device="cpu", command="c", outcome="ok", started="2026-01-01T00:00:00Z",
        wall_s=1.0, metrics={"t": quantity(2.0), "other": quantity(1.0)},
    )  # fmt: skip


def test_a_record_gets_the_floors_of_the_cores_a_rank_had(record, monkeypatch, tmp_path):
    asked = []

    def ceiling(artifacts: Artifacts, site: Site, dtype: str, *, looks: int) -> Ceiling:
        asked.append((artifacts.folder, site, dtype, looks))
        return MACHINE

    monkeypatch.setattr("harness.floors.ceiling", ceiling)
    given = {"artifacts": Artifacts(tmp_path), "cores": [4, 5, 6, 7]}
    found = with_floors(record, {"t": Needs(flops=1e9)}, **given)
    assert found.metrics["t"].floor.mfu == 0.5
    assert found.metrics["other"] == record.metrics["other"]
    assert asked == [(tmp_path, Site(threads=2, cores=(4, 5)), "float32", 1)]
    assert with_floors(record, {}, **given) == record


def test_without_a_ceiling_a_record_says_so(record, monkeypatch, tmp_path):
    def ceiling(*_: object, looks: int) -> Ceiling:
        raise CeilingError("no")

    monkeypatch.setattr("harness.floors.ceiling", ceiling)
    given = {"artifacts": Artifacts(tmp_path), "cores": [0]}
    found = with_floors(record, {"t": Needs(flops=1e9)}, **given)
    assert found.notes == {"floors": "no"}
    assert found.metrics == record.metrics


# --- cheats: sines, an operation each (in one thread), that are claimed and not then computed.

A = np.random.default_rng(0).standard_normal(200_000)
SINES = Needs(flops=A.size)


class Lazy:
    """An output that is computed when it is read."""

    def __call__(self) -> Callable[[], np.ndarray]:
        return lambda: np.sin(A)


class Cached:
    """The output of the first call, for ever."""

    def __init__(self) -> None:
        self.kept: dict[int, np.ndarray] = {}

    def __call__(self) -> np.ndarray:
        if id(A) not in self.kept:
            self.kept[id(A)] = np.sin(A)
        return self.kept[id(A)]


class Skipping:
    """A quarter of the numbers."""

    def __call__(self) -> np.ndarray:
        return np.sin(A[: A.size // 4])


class Beside:
    """Another thread does it, and nobody waits."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def __call__(self) -> None:
        self.threads.append(threading.Thread(target=lambda: np.sin(A)))
        self.threads[-1].start()


def honest() -> np.ndarray:
    return np.sin(A)


def judged(work: Callable[[], object]) -> Floor:
    """The work's floor on a machine that is as fast as honest sines, which take turns with it."""
    sines, taken = Clock().interleave([honest, work], rounds=60, warmup=1, seed=0)
    flops = SINES.flops / float(np.quantile(sines, 0.25))
    return floor(np.array(taken), SINES, Ceiling(flops=flops, bandwidth=1e11, cache_bytes=1 << 30))


def test_honest_work_is_possible():
    found = judged(honest)
    assert not found.impossible
    assert 0 < found.mfu < 1.25


@pytest.mark.parametrize("cheat", [Lazy, Cached, Skipping, Beside])
def test_work_that_is_not_done_in_time_is_impossible(cheat):
    work = cheat()
    assert judged(work).impossible
    for thread in getattr(work, "threads", ()):
        thread.join()


def test_a_timer_that_a_technique_replaces_is_not_the_one_that_counts(monkeypatch):
    def patches() -> None:
        for name in ("perf_counter", "perf_counter_ns", "monotonic", "time"):
            monkeypatch.setattr(time, name, lambda: 0)
        time.sleep(0.005)

    (samples,) = Clock().interleave([patches], rounds=5, warmup=1, seed=0)
    monkeypatch.undo()
    assert min(samples) >= 0.005
