"""The doctor names the machine, what it records beside timings, and the ceilings it knows."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.artifacts import Artifacts
from harness.ceilings import Ceiling, Site, ceiling
from harness.commands import doctor
from harness.environment import machine_class


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def lines() -> list[str]:
        monkeypatch.setenv("LLMATRIX_CACHE", str(tmp_path))
        assert doctor.main(SimpleNamespace(results=tmp_path)) == 0
        return capsys.readouterr().out.splitlines()

    return lines


def test_it_names_the_class_of_machine(told):
    assert machine_class() in told()[0]


def test_it_says_what_is_recorded_beside_timings(told):
    (line,) = (line for line in told() if "recorded beside timings" in line)
    assert line.startswith("ok   ")
    assert "load1" in line


def test_it_tells_the_ceilings_that_were_measured(told, monkeypatch, tmp_path):
    assert not any("ceiling float32" in line for line in told())
    monkeypatch.setattr(
        "harness.ceilings._measured",
        lambda site, dtype: '{"flops": 2e12, "bandwidth": 3e10, "cache_bytes": 1}',
    )
    site = Site(threads=2)
    assert isinstance(ceiling(Artifacts(tmp_path), site, "float32"), Ceiling)
    assert any("2,000 GFLOP/s, memory 30 GB/s" in line for line in told())


@pytest.mark.parametrize(("governor", "mark"), [("performance", "ok  "), ("powersave", "MISS")])
def test_a_governor_that_saves_power_is_pointed_out(told, monkeypatch, tmp_path, governor, mark):
    folder = tmp_path / "cpu0" / "cpufreq"
    folder.mkdir(parents=True)
    (folder / "scaling_governor").write_text(f"{governor}\n")
    monkeypatch.setattr(doctor, "CPUS", str(tmp_path))
    (line,) = (line for line in told() if "CPU frequency governor" in line)
    assert line.startswith(f"{mark} CPU frequency governor is {governor}")
