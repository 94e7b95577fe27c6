"""NVIDIA devices through a library made up here: what it says, and all the ways it says nothing."""

import os
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import pytest

from harness import nvidia
from harness.instruments.conditions import Conditions

UUID = "5b4c"


class NVMLError(Exception):
    pass


FACTS = {
    "TotalEnergyConsumption": 5_000,
    "PowerUsage": 250_000,
    "ClockInfo": 1980,
    "Temperature": 41,
    "CurrentClocksThrottleReasons": 1,
    "ComputeRunningProcesses": [os.getpid()],
}


class Library(SimpleNamespace):
    """As much of pynvml as is used; of one device the facts that `facts` holds."""

    def __init__(self, **facts) -> None:
        self.facts = FACTS | facts
        functions = {f"nvmlDeviceGet{name}": partial(self.fact, name) for name in FACTS}
        super().__init__(
            NVMLError=NVMLError,
            NVML_CLOCK_SM=1,
            NVML_TEMPERATURE_GPU=0,
            nvmlInit=lambda: None,
            nvmlDeviceGetHandleByUUID=self.handle,
            nvmlDeviceGetCount=lambda: 2,
            nvmlDeviceGetHandleByIndex=lambda index: index,
            nvmlDeviceGetName=lambda handle: f"Trial {handle}",
            facts=self.facts,
            **functions,
        )

    def handle(self, uuid: str) -> str:
        if uuid != f"GPU-{UUID}":
            raise NVMLError("not found")
        return "handle"

    def fact(self, name: str, handle: str, *_which: int):
        assert handle == "handle"
        found = self.facts[name]
        if isinstance(found, Exception):
            raise found
        if name == "ComputeRunningProcesses":
            return [SimpleNamespace(pid=pid) for pid in found]
        return found


def without_driver() -> Library:
    def fail() -> None:
        raise NVMLError("driver not loaded")

    library = Library()
    library.nvmlInit = fail
    return library


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    def installed(library) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", library)

    return installed


def test_a_device_tells_its_state(install):
    install(Library())
    assert nvidia.find(UUID).reading() == {
        "energy_mj": 5000.0,
        "power_w": 250.0,
        "sm_mhz": 1980.0,
        "temperature_c": 41.0,
        "throttle": 0.0,  # idleness is none
        "foreign_processes": 0.0,
    }


def test_the_prefix_of_an_id_is_optional(install):
    install(Library())
    assert nvidia.find(f"GPU-{UUID}")
    assert nvidia.find("another") is None


def test_a_round_has_its_energy_and_whatever_held_the_clocks_down(install):
    library = Library(CurrentClocksThrottleReasons=4)
    install(library)
    watch = Conditions(nvidia.find(UUID))
    with watch.round():
        library.facts |= {"TotalEnergyConsumption": 5_750, "CurrentClocksThrottleReasons": 1 | 32}
        library.facts |= {"ClockInfo": 1880, "ComputeRunningProcesses": [os.getpid(), 1, 2]}
    taken = {name: value for name, (value,) in watch.values.items()}
    assert taken["energy_mj"] == 750
    assert taken["throttle"] == 4 | 32
    assert taken["sm_mhz"] == 1930
    assert taken["foreign_processes"] == 2
    assert "load1" in taken


@pytest.mark.parametrize(
    ("pids", "foreign"),
    [([], 0), ([os.getpid()], 0), ([os.getpid(), 1], 1), ([4_000_001], 0), ([4_000_001, 1], 1)],
    ids=["none", "own", "own and one", "own under the host's id", "own and one, host's ids"],
)
def test_own_processes_are_not_foreign(install, pids, foreign):
    install(Library(ComputeRunningProcesses=pids))
    assert nvidia.find(UUID).reading()["foreign_processes"] == foreign


def test_children_are_not_foreign(install):
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        install(Library(ComputeRunningProcesses=[os.getpid(), child.pid, 1]))
        assert nvidia.find(UUID).reading()["foreign_processes"] == 1
        child.communicate(b"\n")


def test_a_fact_the_device_does_not_offer_is_left_out(install):
    install(Library(TotalEnergyConsumption=NVMLError("not supported")))
    reading = nvidia.find(UUID).reading()
    assert "energy_mj" not in reading
    assert reading["power_w"] == 250.0


def test_models_are_named(install):
    install(Library())
    assert nvidia.names() == ["Trial 0", "Trial 1"]


@pytest.mark.parametrize("library", [None, without_driver()], ids=["no package", "no driver"])
def test_without_package_or_driver_there_is_nothing(install, library):
    install(library)
    assert nvidia.names() == []
    assert nvidia.find(UUID) is None
