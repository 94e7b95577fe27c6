"""The C++ weight-only kernel against the dequantized product in float64."""

import os
import platform
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from impls.compression.kernels import weight_only
from impls.compression.kernels.weight_only import linear, prepare, why_not
from impls.models import native

pytestmark = pytest.mark.skipif(
    not native.available(), reason=f"no compiler: {native.why_unavailable()}"
)

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
BITS = pytest.mark.parametrize("bits", [4, 8])


def layer(rows, columns, group, bits, *, fractional=False):
    """Codes, scales, zeros; float16 holds scales and zeros exactly unless they are fractional."""
    shape = (rows, columns // group)
    codes = torch.randint(2**bits, (rows, columns), dtype=torch.uint8)
    scales, zeros = 0.01 * torch.rand(shape) + 0.001, torch.rand(shape) * 2**bits
    return codes, *((scales, zeros) if fractional else (scales.half().float(), zeros.round()))


def dequantized(codes, scales, zeros):
    group = codes.shape[1] // scales.shape[1]
    scales, zeros = (x.double().repeat_interleave(group, 1) for x in (scales, zeros))
    return scales * (codes - zeros)


def naive(x, weight, bias):
    """One column after another, summed in float32, rounded to x's dtype at the end."""
    sums = torch.zeros(len(x), len(weight))
    for left, right in zip(x.float().T, weight.float().T, strict=True):
        sums += left[:, None] * right
    return (sums + bias).to(x.dtype)


def check_error(dtype, rows, columns, group, bits, *, fractional=False, n=70):
    """At most twice the naive error, against float64."""
    given = layer(rows, columns, group, bits, fractional=fractional)
    x, bias, weight = torch.randn(n, columns).to(dtype), torch.randn(rows), dequantized(*given)
    exact = x.double() @ weight.T + bias
    got = linear(x, prepare(*given, bits=bits), bias)
    assert got.dtype == dtype
    assert (got - exact).abs().max() <= 2 * (naive(x, weight, bias) - exact).abs().max()


SHAPES = {  # rows, columns, group
    "16": (33, 128, 16),
    "32": (32, 256, 32),
    "64": (65, 320, 64),
    "128": (100, 512, 128),
    "row": (31, 1024, 1024),
    "24": (1, 72, 24),
    "520, in thirds": (64, 1560, 1560),
}


@DTYPES
@BITS
@pytest.mark.parametrize("fractional", [False, True], ids=["integer zeros", "fractional zeros"])
@pytest.mark.parametrize("shape", SHAPES)
def test_error_is_at_most_twice_the_naive_one(shape, fractional, bits, dtype):
    torch.manual_seed(0)
    check_error(dtype, *SHAPES[shape], bits, fractional=fractional)


@DTYPES
@BITS
def test_a_row_does_not_depend_on_how_many_there_are(bits, dtype):
    torch.manual_seed(1)
    prepared = prepare(*layer(65, 384, 64, bits), bits=bits)
    x = torch.randn(500, 384).to(dtype)
    together = linear(x, prepared)
    for n in (*range(1, 71), 239, 240, 241, 481):
        assert torch.equal(linear(x[:n], prepared), together[:n]), n


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are x86-64's")
@BITS
@pytest.mark.parametrize("flag", ["-mno-avx", "-mno-avx512f", "-mno-avx512bf16", "-mno-avx512vbmi"])
def test_machines_without_these_instructions(flag, bits, monkeypatch):
    torch.manual_seed(2)
    library = native.load(weight_only.SOURCE, (flag,))
    monkeypatch.setattr(weight_only, "_library", lambda: library)
    for dtype in (torch.float32, torch.bfloat16):
        check_error(dtype, 65, 320, 64, bits)
        check_error(dtype, 33, 96, 32, bits, fractional=True, n=1)


@DTYPES
def test_every_code_is_exact(dtype):
    """A row of x with a single 1 reads a column of W: exact where scales are powers of two."""
    for bits in (4, 8):
        codes = torch.arange(64).mul(37).remainder(2**bits).to(torch.uint8).repeat(32, 1)
        codes += torch.arange(32, dtype=torch.uint8)[:, None]
        codes &= 2**bits - 1
        scales, zeros = torch.full((32, 4), 0.25), torch.full((32, 4), 3.0)
        got = linear(torch.eye(64, dtype=dtype), prepare(codes, scales, zeros, bits=bits))
        assert torch.equal(got.T, (0.25 * (codes.float() - 3)).to(dtype))
        assert codes.unique().numel() == 2**bits


def test_a_float32_input_keeps_all_its_bits():
    """One product: no sum hides what is lost of x."""
    x = torch.zeros(256, 32)
    x[:, 0] = torch.rand(256) + 1
    codes = torch.full((32, 32), 9, dtype=torch.uint8)
    ones = torch.ones(32, 1)
    centred = prepare(codes, ones, 8 * ones, bits=4)
    assert torch.equal(linear(x, centred), x[:, :1].expand(256, 32))


@DTYPES
@BITS
def test_results_do_not_depend_on_the_number_of_threads(bits, dtype):
    torch.manual_seed(3)
    # Large enough to be worth more than one thread.
    prepared = prepare(*layer(2000, 1024, 64, bits), bits=bits)
    x, usual, results = torch.randn(17, 1024).to(dtype), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(linear(x, prepared))
    finally:
        torch.set_num_threads(usual)
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_several_products_may_run_at_a_time():
    torch.manual_seed(8)
    prepared = prepare(*layer(2000, 1024, 64, 4), bits=4)
    inputs, usual = torch.randn(40, 5, 1024), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        expected = [linear(x, prepared) for x in inputs]
        with ThreadPoolExecutor(4) as callers:
            together = list(callers.map(lambda x: linear(x, prepared), inputs))
    finally:
        torch.set_num_threads(usual)
    assert all(torch.equal(x, y) for x, y in zip(together, expected, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_computes_the_same():
    torch.manual_seed(4)
    prepared, x = prepare(*layer(2000, 1024, 64, 4), bits=4), torch.randn(17, 1024)
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = linear(x, prepared)
        child = os.fork()
        if not child:
            os._exit(linear(x, prepared).numpy().tobytes() != expected.numpy().tobytes())
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(usual)


def test_strides_and_leading_axes_change_nothing_and_inputs_are_not_written_to():
    torch.manual_seed(5)
    prepared = prepare(*layer(40, 96, 32, 4), bits=4)
    x = torch.randn(96, 2, 3).permute(1, 2, 0)
    before = x.clone()
    got = linear(x, prepared)
    assert got.shape == (2, 3, 40)
    assert torch.equal(got.flatten(0, 1), linear(x.reshape(6, 96), prepared))
    assert torch.equal(linear(x[0, 0], prepared), got[0, 0])
    assert torch.equal(x, before)
    assert linear(x[:0], prepared).shape == (0, 3, 40)


def test_what_is_not_finite_is_seen():
    torch.manual_seed(6)
    prepared = prepare(*layer(40, 96, 32, 4), bits=4)
    for dtype, value in ((d, v) for d in (torch.float32, torch.bfloat16) for v in ("nan", "inf")):
        x = torch.randn(2, 96).to(dtype)
        x[1, 50] = float(value)
        got = linear(x, prepared)
        assert got[0].isfinite().all()
        assert not got[1].isfinite().any()


@BITS
def test_prepared_weights_are_as_small_as_they_can_be(bits):
    """Codes at their bits, 16 bits for scale and zero where those are exact, else 32."""
    torch.manual_seed(7)
    for fractional, each in ((False, 2), (True, 4)):
        prepared = prepare(*layer(64, 256, 64, bits, fractional=fractional), bits=bits)
        assert prepared.nbytes == 64 * 256 * bits // 8 + 2 * each * 64 * 4


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((64, 64, 1, 3), "4 or 8 bits, got 3"),
        ((64, 100, 1, 4), "multiple of 8 columns, got 100 columns in 1 groups"),
        ((64, 64, 16, 4), "got 64 columns in 16 groups"),
        ((64, 64, 3, 8), "got 64 columns in 3 groups"),
        ((0, 64, 1, 4), "must be rows, columns and groups, got 0, 64 and 1"),
    ],
)
def test_a_shape_it_does_not_know_is_told(shape, message):
    assert message in why_not(*shape)
    rows, columns, groups, bits = shape
    codes = torch.zeros(rows, columns, dtype=torch.uint8)
    with pytest.raises(ValueError, match=message):
        prepare(codes, torch.ones(rows, groups), torch.ones(rows, groups), bits=bits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": torch.zeros(4, 8)}, r"uint8, got \(4, 8\) torch.float32"),
        ({"codes": torch.full((4, 8), 16, dtype=torch.uint8)}, "below 16, got 16"),
        ({"scales": torch.ones(4, 2)}, r"\(4, G\), got \(4, 2\) and \(4, 1\)"),
        ({"scales": torch.full((4, 1), torch.inf)}, "scales must be finite, got inf"),
        ({"zeros": torch.full((4, 1), torch.nan)}, "zeros must be finite, got nan"),
        ({"zeros": torch.ones(4, 1, device="meta")}, "on the CPU, got meta"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, message):
    codes, ones = torch.zeros(4, 8, dtype=torch.uint8), torch.ones(4, 1)
    given = {"codes": codes, "scales": ones, "zeros": ones} | change
    with pytest.raises(ValueError, match=message):
        prepare(**given, bits=4)


def test_inputs_that_do_not_fit_are_refused():
    prepared = prepare(*layer(40, 96, 32, 4), bits=4)
    with pytest.raises(ValueError, match="float16"):
        linear(torch.ones(2, 96).half(), prepared)
    with pytest.raises(ValueError, match=r"\(..., 96\), got \(2, 95\)"):
        linear(torch.ones(2, 95), prepared)
    with pytest.raises(ValueError, match=r"bias must be \(40,\), got \(41,\)"):
        linear(torch.ones(2, 96), prepared, torch.ones(41))
