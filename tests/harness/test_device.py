"""Device events on a device made up here, and on a real one where there is one (`-m gpu`)."""

import sys
import time
from types import SimpleNamespace

import pytest
import torch

from harness.instruments import device
from harness.instruments.clock import seconds
from harness.instruments.device import DeviceTimer, timer_for

LAUNCH_S = 1e-5


class Machine:
    """A host and a device with two streams; times are simulated seconds."""

    def __init__(self) -> None:
        self.host = 0.0
        self.free = {"main": 0.0, "side": 0.0}  # when each stream has done all it was given

    def launch(self, lasting: float, stream: str = "main") -> None:
        self.host += LAUNCH_S
        self.free[stream] = max(self.host, self.free[stream]) + lasting

    def synchronize(self) -> None:
        self.host = max(self.host, *self.free.values())

    def Event(self, *, enable_timing: bool) -> "Event":  # noqa: N802 - torch's own name
        assert enable_timing
        return Event(self)


class Event:
    def __init__(self, machine: Machine) -> None:
        self.machine, self.at = machine, 0.0

    def record(self) -> None:
        self.at = max(self.machine.host, self.machine.free["main"])

    def synchronize(self) -> None:
        self.machine.host = max(self.machine.host, self.at)

    def elapsed_time(self, end: "Event") -> float:
        return 1000 * (end.at - self.at)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(device, "perf_counter", lambda: made.host)
    return made


def test_a_work_takes_as_long_as_its_events_say(machine):
    timer = DeviceTimer(machine)
    assert timer(lambda: machine.launch(3e-3)) == pytest.approx(3e-3 + LAUNCH_S)
    assert timer.notes() == {}


def test_behind_a_flush_launches_cost_nothing_and_the_flush_is_not_counted(machine):
    flushes = []

    def flush() -> None:
        flushes.append(machine.host)
        machine.launch(1e-4)

    timer = DeviceTimer(machine, flush)
    taken = [timer(lambda: machine.launch(2e-5)) for _ in range(3)]
    assert taken == pytest.approx([2e-5] * 3)
    assert len(flushes) == 3
    assert timer.notes() == {}


def test_what_was_still_running_before_is_not_counted(machine):
    machine.launch(0.5)
    assert DeviceTimer(machine)(lambda: machine.launch(1e-3)) < 2e-3


def test_work_hidden_on_another_stream_is_found(machine):
    timer = DeviceTimer(machine)
    assert timer(lambda: machine.launch(3e-3, "side")) >= 3e-3
    assert device.notes(timer) == {"timing": {"samples": 1, "outlived_events": 1}}
    assert device.notes(timer_for("cpu")) == {}


def test_streams_that_end_together_are_no_offence(machine):
    timer = DeviceTimer(machine)

    def both() -> None:
        machine.launch(3.02e-3, "side")
        machine.launch(3e-3)

    assert timer(both) == pytest.approx(3e-3, rel=0.02)
    assert timer.notes() == {}


def test_events_that_lie_are_overruled_by_the_wall_clock(machine, monkeypatch):
    monkeypatch.setattr(Event, "elapsed_time", lambda self, end: 0.01)
    timer = DeviceTimer(machine)
    assert timer(lambda: machine.launch(4e-3)) == pytest.approx(4e-3, rel=0.01)
    assert timer.notes() == {"timing": {"samples": 1, "doubted_events": 1}}


def test_a_short_work_behind_a_long_flush_is_no_lie(machine):
    timer = DeviceTimer(machine, lambda: machine.launch(6e-4))
    assert timer(lambda: machine.launch(1e-5)) == pytest.approx(1e-5)
    assert timer.notes() == {}


def test_replacing_torch_s_functions_later_changes_nothing(machine, monkeypatch):
    timer = DeviceTimer(machine)
    monkeypatch.setattr(machine, "synchronize", lambda: None)
    assert timer(lambda: machine.launch(3e-3, "side")) >= 3e-3


def test_a_cpu_has_the_wall_clock():
    assert timer_for("cpu") is seconds
    assert timer_for("cpu")(lambda: time.sleep(0.01)) >= 0.01


@pytest.mark.parametrize("flush", [True, False])
def test_a_gpu_s_cache_is_flushed_with_twice_its_size(monkeypatch, flush):
    made = []

    class Torch:
        uint8 = "uint8"
        cuda = SimpleNamespace(
            Event=None,
            synchronize=None,
            get_device_properties=lambda: SimpleNamespace(L2_cache_size=50_000_000),
        )

        @staticmethod
        def empty(size: int, **how: str) -> SimpleNamespace:
            made.append((size, how))
            return SimpleNamespace(zero_=None)

    monkeypatch.setitem(sys.modules, "torch", Torch)
    assert isinstance(timer_for("cuda", flush=flush), DeviceTimer)
    assert made == [(100_000_000, {"dtype": "uint8", "device": "cuda"})] * flush


def test_another_device_is_refused():
    with pytest.raises(ValueError, match="cpu or cuda, got 'tpu'"):
        timer_for("tpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_device_is_timed_by_events_as_by_many_calls_on_the_wall_clock():
    a = torch.randn(4096, 4096, device="cuda")
    timer = timer_for("cuda")
    [timer(lambda: a @ a) for _ in range(5)]
    ours = sorted(timer(lambda: a @ a) for _ in range(20))[10]
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(50):
        a @ a
    torch.cuda.synchronize()
    assert ours == pytest.approx((time.perf_counter() - start) / 50, rel=0.25)
    assert timer.notes() == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_side_stream_is_found():
    a, side, timer = torch.randn(8192, 8192, device="cuda"), torch.cuda.Stream(), timer_for("cuda")
    honest = timer(lambda: a @ a)

    def hidden() -> None:
        with torch.cuda.stream(side):
            a @ a

    hidden()
    assert timer(hidden) > 0.5 * honest
    assert timer.notes()["timing"]["outlived_events"] >= 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_device_tells_its_state():
    a = torch.randn(4096, 4096, device="cuda")
    a @ a
    reading = device.gpu().reading()
    assert reading["sm_mhz"] > 100
    assert reading["foreign_processes"] >= 0
