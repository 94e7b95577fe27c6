import pytest
import torch

from harness import catalogue
from harness.instruments import Instruments
from harness.worker import _checked
from impls.attention.interface import Work
from suites import attention_throughput, memory
from suites._attention import adopted, sides, work_of


@pytest.mark.parametrize("name", ["attention/full", "attention/gqa", "attention/differential"])
def test_kernels_and_blocks_are_timed_at_every_length(cache, name):
    instruments = Instruments(artifacts=cache, technique=name)
    setting = attention_throughput.Setting(n_tokens=128, n_heads=4, d_head=16, rounds=3)
    measured = attention_throughput.measure(catalogue.load(name)(), setting, instruments)
    result = _checked(measured, attention_throughput.SUITE)
    assert len(result["forward_ms"]) == 3
    assert min(result["forward_ms"]) > 0
    assert instruments.notes["lengths"] == [16, 32, 64, 128]
    is_block = name == "attention/differential"
    assert instruments.notes["level"] == ("block" if is_block else "kernel")
    assert result["kept_share"] == 1


def test_the_technique_and_its_reference_get_the_same_inputs():
    technique = catalogue.load("attention/full")()
    work = work_of(technique, Work(n_heads=4, n_kv_heads=4, n_q=32, n_k=32, d_head=16))
    ours, dense = sides(technique, work, seed=0)
    # Two orders of summing 32 float32 products of about 1.
    assert torch.allclose(ours.forward(), dense.forward(), atol=1e-5)
    assert ours.recorded().requires_grad
    assert not ours.forward().requires_grad


def test_a_grouped_technique_gets_as_many_key_heads_as_its_layer_has():
    gqa = catalogue.load("attention/gqa")(n_groups=2)
    assert work_of(gqa, Work(n_heads=4, n_kv_heads=4)).n_kv_heads == 2


def test_a_peer_is_raced_where_it_repeats_the_technique():
    full = catalogue.load("attention/full")()
    work = Work(n_heads=2, n_kv_heads=2, n_q=40, n_k=40, d_head=16)
    (kernel,) = adopted("attention/peers/sdpa", full)
    ours, _, peer = sides(full, work, kernel, seed=0)
    # Two orders of summing 40 float32 products of about 1.
    assert torch.allclose(ours.forward(), peer.forward(), atol=1e-5)
    assert adopted("", full) == []
    with pytest.raises(ValueError, match="peers/flex does not repeat attention/linear"):
        adopted("attention/peers/flex", catalogue.load("attention/linear")())


def test_state_bytes_are_those_of_the_formula_and_dense_memory_is_quadratic(cache):
    instruments = Instruments(artifacts=cache, technique="attention/full")
    setting = memory.Setting(n_tokens=2048)
    measured = memory.measure(catalogue.load("attention/full")(), setting, instruments)
    result = _checked(measured, memory.SUITE)
    assert result["state_bytes_per_token"] == result["state_bytes_formula"] == 2 * 8 * 64 * 4
    # Scores of 8 heads at 2,048 tokens are 134 MB, next to which the linear parts are small.
    assert 1.6 < result["peak_slope"] < 2.2


@pytest.mark.parametrize("suite", [attention_throughput, memory])
def test_a_bad_setting_is_refused(suite):
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, got 'int8'"):
        suite.Setting(dtype="int8")
    with pytest.raises(ValueError, match="n_tokens must be at least"):
        suite.Setting(n_tokens=7)
