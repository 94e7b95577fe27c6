"""Ceilings: measured in a process of its own, kept, and above what honest work reaches."""

import json
from pathlib import Path

import pytest
import torch

from harness import ceilings
from harness.artifacts import Artifacts
from harness.ceilings import Ceiling, CeilingError, Site, cache_bytes, ceiling, kept
from harness.environment import environment, usable_cores
from harness.instruments import ceiling_trial

ONE = Site(threads=1, cores=tuple(usable_cores()[:1]))


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Types measured; the n-th look finds n GFLOP/s and 10 - n GB/s."""
    seen: list[str] = []

    def measured(site: Site, dtype: str) -> str:
        seen.append(dtype)
        n = len(seen)
        return json.dumps({"flops": n * 1e9, "bandwidth": (10 - n) * 1e9, "cache_bytes": 100})

    monkeypatch.setattr(ceilings, "_measured", measured)
    return seen


def test_a_ceiling_is_measured_once_and_kept(tmp_path, monkeypatch):
    artifacts = Artifacts(tmp_path)
    first = ceiling(artifacts, ONE, "float32")
    assert first.flops > 1e9
    assert 1e8 < first.bandwidth < 1e13
    assert first.cache_bytes == cache_bytes(ONE.cores)
    monkeypatch.delattr(ceilings, "_measured")
    assert ceiling(artifacts, ONE, "float32") == first
    assert len(kept(artifacts)) == 1


def test_sites_and_types_have_ceilings_of_their_own(tmp_path, trials, monkeypatch):
    artifacts = Artifacts(tmp_path)
    found = [
        ceiling(artifacts, ONE, "float32"),
        ceiling(artifacts, ONE, "bfloat16"),
        ceiling(artifacts, Site(threads=2), "float32"),
        ceiling(artifacts, ONE, "float32"),
    ]
    assert [round(one.flops / 1e9) for one in found] == [1, 2, 3, 1]
    monkeypatch.setattr(ceilings, "environment", lambda: {"machine_class": "another"})
    assert ceiling(artifacts, ONE, "float32").flops == 4e9
    assert trials == ["float32", "bfloat16", "float32", "float32"]


def test_of_several_looks_the_best_counts_and_each_is_kept(tmp_path, trials):
    artifacts = Artifacts(tmp_path)
    assert ceiling(artifacts, ONE, "float32") == Ceiling(flops=1e9, bandwidth=9e9, cache_bytes=100)
    best = Ceiling(flops=2e9, bandwidth=9e9, cache_bytes=100)
    assert ceiling(artifacts, ONE, "float32", looks=2) == best
    assert ceiling(artifacts, ONE, "float32", looks=2) == best
    assert len(trials) == 2


def test_what_is_kept_is_told_of_this_machine_alone(tmp_path, trials, monkeypatch):
    artifacts = Artifacts(tmp_path)
    assert kept(artifacts) == []
    ceiling(artifacts, Site(threads=4), "float32")
    assert kept(artifacts) == ["float32 on cpu, 4 threads: 1 GFLOP/s, memory 9 GB/s"]
    facts = environment() | {"machine_class": "another"}
    monkeypatch.setattr(ceilings, "environment", lambda: facts)
    assert kept(artifacts) == []


def test_a_ceiling_that_cannot_be_measured_says_why(tmp_path):
    with pytest.raises(CeilingError, match=r"of float33 on cpu cannot be measured: .+"):
        ceiling(Artifacts(tmp_path), ONE, "float33")
    assert kept(Artifacts(tmp_path)) == []


def test_a_ceiling_that_takes_too_long_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(ceilings, "_PATIENCE_S", 0.01)
    with pytest.raises(CeilingError, match="not measured within"):
        ceiling(Artifacts(tmp_path), ONE, "float32")


def test_half_the_bytes_are_twice_the_numbers_a_second(monkeypatch):
    monkeypatch.setattr(ceiling_trial, "BUDGET_S", 0.3)
    single, double = (ceiling_trial.arithmetic("cpu", t) for t in (torch.float32, torch.float64))
    assert single > 1.3 * double > 1e9


def test_a_size_that_would_take_too_long_is_not_tried(monkeypatch):
    sizes: list[int] = []

    def slow(device: str, work) -> float:
        sizes.append(work.args[0].shape[0])
        return 2 * sizes[-1] ** 3 / 1e9  # a gigaflop a second

    monkeypatch.setattr(ceiling_trial, "_fastest", slow)
    assert ceiling_trial.arithmetic("cpu", torch.float32) == pytest.approx(1e9)
    assert sizes == [512]


def test_in_16_bits_a_technique_may_compute_in_32(monkeypatch):
    speeds = {torch.bfloat16: 1.0, torch.float32: 3.0}
    monkeypatch.setattr(ceiling_trial, "arithmetic", lambda device, dtype: speeds[dtype])
    monkeypatch.setattr(ceiling_trial, "traffic", lambda device, n: float(n))
    request = {"device": "cpu", "cores": [], "threads": torch.get_num_threads(), "cache_bytes": 7}
    assert ceiling_trial.main({**request, "dtype": "bfloat16"})["flops"] == 3.0
    assert ceiling_trial.main({**request, "dtype": "float32"}) == {
        "flops": 3.0,
        "bandwidth": 7.0,
        "cache_bytes": 7,
    }


def test_caches_that_cores_share_count_once(monkeypatch, tmp_path):
    monkeypatch.setattr(ceilings, "CPUS", tmp_path)
    for core, shared in ((0, "0-1"), (1, "0-1"), (2, "2")):
        for index, size in (("index0", "32K"), ("index3", "32M")):
            folder = tmp_path / f"cpu{core}" / "cache" / index
            folder.mkdir(parents=True)
            (folder / "size").write_text(f"{size}\n")
            (folder / "shared_cpu_list").write_text(f"{shared}\n")
    assert cache_bytes((0, 1)) == 32 << 20
    assert cache_bytes((0, 1, 2)) == 64 << 20
    assert cache_bytes((3,)) == ceilings.UNKNOWN_CACHE_BYTES


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_device_has_ceilings(tmp_path):
    half = ceiling(Artifacts(Path(tmp_path)), Site(device="cuda"), "bfloat16")
    full = ceiling(Artifacts(Path(tmp_path)), Site(device="cuda"), "float32")
    assert half.flops > 2 * full.flops > 1e12
    assert half.bandwidth > 1e11
