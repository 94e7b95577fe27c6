import pytest
import torch
from torch.nn.functional import linear

from harness import catalogue
from harness.errors import UsageError
from harness.instruments import Instruments
from harness.worker import _checked
from suites import _products, matmul_throughput
from suites._products import torch_bf16, torch_int4, torch_int8, work

SMALL = {"n_tokens": 3, "n_outputs": 64, "n_inputs": 128, "rounds": 2}


def measured(cache, name, options=None, **setting):
    instruments = Instruments(artifacts=cache, technique=name)
    given = matmul_throughput.Setting(**{**SMALL, **setting})
    technique = catalogue.load(name)(**(options or {}))
    found = matmul_throughput.measure(technique, given, instruments)
    return _checked(found, matmul_throughput.SUITE), instruments


@pytest.mark.parametrize("dtype", matmul_throughput.DTYPES)
@pytest.mark.parametrize("bits", [4, 8])
def test_every_side_is_timed_in_every_round(cache, bits, dtype):
    result, instruments = measured(cache, "compression/rtn", {"bits": bits}, dtype=dtype)
    for name in (metric.name for metric in matmul_throughput.SUITE.metrics):
        if name != "bits_per_parameter":
            assert len(result[name]) == 2
            assert min(result[name]) > 0
    # A scale of 16 bits and a zero point of b for each group of 64.
    assert result["bits_per_parameter"] == bits + (16 + bits) / 64
    stored = instruments.notes["stored_bytes"]
    assert stored == 64 * 128 * result["bits_per_parameter"] / 8
    # Rows of 2 bytes are read and written.
    assert instruments.needed["product_ms"].bytes == stored + 3 * (64 + 128) * 2
    assert set(instruments.notes["torch_ms"]) == {"int4", "int8", "bf16"}


def test_ratios_are_those_of_the_times(cache):
    result, instruments = measured(cache, "compression/rtn", rounds=1)
    for name, ms in instruments.notes["torch_ms"].items():
        assert result[f"{name}_over_ours"] == pytest.approx([ms / result["product_ms"][0]])
    nearest = min(result["bf16_over_ours"][0], result["int4_over_ours"][0])
    assert result["fastest_over_ours"] == [nearest]


def test_a_technique_that_needs_calibration_gets_it(cache):
    result, _ = measured(cache, "compression/gptq")
    assert len(result["product_ms"]) == 2


def test_a_technique_of_whole_models_is_refused(cache):
    class Shorter:
        """No layer takes another's place."""

    instruments = Instruments(artifacts=cache, technique="compression/rtn")
    with pytest.raises(UsageError, match="Shorter changes a model as a whole"):
        matmul_throughput.measure(Shorter(), matmul_throughput.Setting(), instruments)


def test_the_sides_of_torch_multiply_by_the_same_weight():
    """Half a step is the most a nearest code is off; bfloat16 rounds scales and the result."""
    torch.manual_seed(0)
    weight, x = torch.randn(64, 128) / 11, torch.randn(5, 128).to(torch.bfloat16)
    exact = linear(x.double(), weight.double())
    most = x.double().abs() @ torch.ones(128, 64).double() * weight.abs().max()
    for make, levels in ((torch_int4, 7), (torch_int8, 127), (torch_bf16, 256)):
        off = (make(weight).of(x).double() - exact).abs()
        assert (off <= most * (0.5 / levels + 2 * 2**-8)).all()


def test_copies_fill_the_caches_up_to_a_bound(monkeypatch):
    made = []
    x = torch.randn(1, 128).to(torch.bfloat16)

    def make():
        made.append(torch_bf16(torch.ones(64, 128)))
        return made[-1]

    work(make, x)
    assert len(made) == _products.MOST_COPIES
    monkeypatch.setattr(_products, "CACHES", 2 * made[0].nbytes)
    made.clear()
    work(make, x)()
    assert len(made) == 3


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n_outputs": 100}, "n_outputs must be a multiple of 64, .* got 100"),
        ({"n_inputs": 0}, "n_inputs must be a multiple of 64, .* got 0"),
        ({"dtype": "int8"}, "dtype must be one of bfloat16, float32, got 'int8'"),
        ({"n_tokens": 0}, "n_tokens and rounds must be at least 1, got 0 and 9"),
    ],
)
def test_a_bad_setting_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        matmul_throughput.Setting(**setting)
