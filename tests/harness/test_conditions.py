"""Conditions: what the kernel says, by rounds, at little cost, and without what is not offered."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.environment import usable_cores
from harness.instruments import conditions
from harness.instruments.conditions import Conditions, offered

EVERYWHERE = {"load1", "runnable", "steal", "involuntary_switches", "voluntary_switches"}


def rounds(watch: Conditions, works) -> dict[str, list[float]]:
    for work in works:
        with watch.round():
            work()
    return watch.values


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_each_fact_has_one_value_a_round():
    values = rounds(Conditions(), [int] * 4)
    assert values.keys() >= EVERYWHERE
    assert {len(taken) for taken in values.values()} == {4}
    assert min(values["runnable"]) >= 1
    assert all(0 <= share <= 1 for share in values["steal"])
    assert list(values) == offered()


def test_without_rounds_there_are_no_values():
    assert Conditions().values == {}


def test_a_round_that_raises_leaves_no_value():
    watch = Conditions()
    with pytest.raises(ZeroDivisionError), watch.round():
        1 / 0  # noqa: B018
    rounds(watch, [int])
    assert {len(taken) for taken in watch.values.values()} == {1}


def test_switches_are_those_of_the_round():
    naps = 20

    def sleeper() -> None:
        for _ in range(naps):
            time.sleep(0.001)

    asleep, awake = rounds(Conditions(), [sleeper, int])["voluntary_switches"]
    assert naps <= asleep < 4 * naps
    assert awake < naps


def test_switches_of_other_threads_count():
    def beside() -> None:
        thread = threading.Thread(target=lambda: [time.sleep(0.001) for _ in range(20)])
        thread.start()
        thread.join()

    assert rounds(Conditions(), [beside])["voluntary_switches"][0] >= 20


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs to share one core")
def test_who_must_share_a_core_is_seen_to():
    core = usable_cores()[0]
    usable = os.sched_getaffinity(0)
    command = [sys.executable, "-S", "-c", "print(flush=True)\nwhile True: pass"]
    watch = Conditions()
    os.sched_setaffinity(0, {core})  # the other inherits it
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
            other.stdout.readline()
            try:
                values = rounds(watch, [lambda: spin(0.1)])
            finally:
                other.kill()
    finally:
        os.sched_setaffinity(0, usable)
    assert values["involuntary_switches"][0] >= 3
    assert values["runnable"][0] >= 1.5


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A kernel whose files the test writes; two cores."""
    monkeypatch.setattr(conditions, "PROC", str(tmp_path))
    monkeypatch.setattr(conditions, "CPUS", str(tmp_path / "cpus"))
    monkeypatch.setattr(conditions, "SLOWEST_S", 1.0)  # it is no test of this machine's disk
    monkeypatch.setattr(conditions, "usable_cores", lambda: [0, 2])
    (tmp_path / "loadavg").write_text("0.50 0.28 0.86 3/90 5207\n")
    return tmp_path


def write_stat(kernel: Path, *stolen: int) -> None:
    cores = [f"cpu{n} 958 865 873 1158 429 0 154 {ticks} 0 0" for n, ticks in enumerate(stolen)]
    lines = [f"cpu 1 1 1 1 1 1 1 {sum(stolen)} 0 0", *cores, "intr 10944374 0 0", "procs_running 3"]
    (kernel / "stat").write_text("\n".join(lines))


def test_steal_is_the_share_of_the_cores_in_use(kernel, monkeypatch):
    ticks = os.sysconf("SC_CLK_TCK")
    clock = iter([0.0] * 100)
    monkeypatch.setattr(conditions, "perf_counter", lambda: next(clock))
    write_stat(kernel, 5, 1000, 7)
    watch = Conditions()
    clock = iter([10.0, 14.0])
    with watch.round():
        write_stat(kernel, 5 + ticks, 9000, 7 + ticks)  # a second from each of two cores, of four
    assert watch.values["steal"] == [0.25]


def test_no_more_than_all_is_stolen_however_short_the_round(kernel):
    write_stat(kernel, 0, 0, 0)
    watch = Conditions()
    with watch.round():
        write_stat(kernel, 100, 0, 100)
    assert watch.values["steal"] == [1.0]


def test_levels_are_the_mean_of_before_and_after(kernel):
    watch = Conditions()
    with watch.round():
        (kernel / "loadavg").write_text("1.50 0.28 0.86 6/90 5207\n")
    assert (watch.values["load1"], watch.values["runnable"]) == ([1.0], [4.5])


def test_frequency_is_that_of_the_cores_in_use(kernel):
    for core, kilohertz in ((0, 2_000_000), (1, 9_000_000), (2, 3_000_000)):
        folder = kernel / "cpus" / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{kilohertz}\n")
    assert rounds(Conditions(), [int])["mhz"] == [2500.0]


def test_frequency_of_a_virtual_machine_is_the_mean_of_its_cores(kernel):
    told = "processor : {}\nmodel name : Trial\ncpu MHz\t\t: {}\n\n"
    (kernel / "cpuinfo").write_text(told.format(0, 2000.5) + told.format(1, 3000.5))
    assert rounds(Conditions(), [int])["mhz"] == [2500.5]


def test_what_the_system_does_not_offer_is_left_out(kernel, monkeypatch):
    monkeypatch.setattr(conditions.psutil, "cpu_freq", lambda: None)
    values = rounds(Conditions(), [int])
    assert values.keys() == {"load1", "runnable", "involuntary_switches", "voluntary_switches"}
    (kernel / "loadavg").unlink()
    assert rounds(Conditions(), [int])["load1"][0] >= 0  # by the system call
    assert "runnable" not in rounds(Conditions(), [int])


def test_what_takes_long_to_read_is_left_out(monkeypatch):
    def slow() -> dict[str, float]:
        time.sleep(2 * conditions.SLOWEST_S)
        return {"load1": 1.0}

    monkeypatch.setattr(conditions, "_load", slow)
    values = rounds(Conditions(), [int])
    assert "load1" not in values
    assert "voluntary_switches" in values


def test_a_fact_that_fails_in_one_round_is_left_out_of_all():
    class Flaky:
        calls = 0

        def reading(self) -> dict[str, float]:
            self.calls += 1
            return {"sm_mhz": 1.0} | ({"power_w": 1.0} if self.calls < 3 else {})

    values = rounds(Conditions(Flaky()), [int, int])
    assert values["sm_mhz"] == [1.0, 1.0]
    assert "power_w" not in values


def test_a_round_costs_little():
    watch, costs = Conditions(), []
    for _ in range(300):
        start = time.perf_counter()
        with watch.round():
            pass
        costs.append(time.perf_counter() - start)
    assert min(costs) < 2e-4
