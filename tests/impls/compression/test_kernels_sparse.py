"""The C++ kernel of sparse weights against the dequantized product in float64."""

import platform

import pytest
import torch

from impls.compression._sparse import SparseWeight
from impls.compression.kernels import sparse
from impls.models import native

pytestmark = pytest.mark.skipif(
    not native.available(), reason=f"no compiler: {native.why_unavailable()}"
)

every_dtype = pytest.mark.parametrize("dtype", sparse.DTYPES)


def stored(rows, columns, dtype="float16", share=0.5):
    generator = torch.Generator().manual_seed(rows + columns)
    weight = torch.randn(rows, columns, generator=generator)
    removed = torch.rand(rows, columns, generator=generator) < share
    return SparseWeight(weight, removed, dtype=dtype)


def naive(x, weight, bias):
    """One column after another, summed in float32, rounded to x's dtype at the end."""
    sums = torch.zeros(len(x), len(weight))
    for left, right in zip(x.float().T, weight.T, strict=True):
        sums += left[:, None] * right
    return (sums + bias).to(x.dtype)


def check_error(weight, n, x_dtype=torch.float32):
    """At most twice the naive error and one rounding, against float64."""
    x = torch.randn(n, weight.columns).to(x_dtype)
    bias, dense = torch.randn(weight.rows), weight.dequantize()
    exact = x.double() @ dense.double().T + bias
    got = sparse.linear(x, weight.kept, weight.values, weight.columns, bias)
    assert got.dtype == x_dtype
    assert got.shape == exact.shape
    unit = torch.finfo(x_dtype).eps * exact.abs().max()
    assert (got - exact).abs().max() <= 2 * (naive(x, dense, bias) - exact).abs().max() + unit


@every_dtype
@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 1), (3, 31), (5, 32), (2, 33), (33, 77), (7, 480)]
)
def test_products_are_as_exact_as_the_naive_one(rows, columns, dtype):
    torch.manual_seed(0)
    weight = stored(rows, columns, dtype)
    for n in (1, 3, 4, 8, 13, 17):
        check_error(weight, n)
        check_error(weight, n, torch.bfloat16)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are x86-64's")
@every_dtype
@pytest.mark.parametrize("flag", ["-mno-avx512f", "-mno-avx"])
def test_machines_without_these_instructions(flag, dtype, monkeypatch):
    torch.manual_seed(1)
    library = native.load(sparse.SOURCE, (flag,))
    monkeypatch.setattr(sparse, "_library", lambda: library)
    weight = stored(33, 77, dtype)
    check_error(weight, 13)
    found = sparse.expand(weight.kept, weight.values, weight.columns)
    assert torch.equal(found, weight.dequantize())


@every_dtype
@pytest.mark.parametrize("share", [0.0, 0.5, 1.1])
@pytest.mark.parametrize("columns", [1, 15, 16, 47, 64])
def test_expanding_is_dequantizing_bit_for_bit(columns, share, dtype):
    weight = stored(9, columns, dtype, share)
    found = sparse.expand(weight.kept, weight.values, columns)
    assert torch.equal(found, weight.dequantize())


@pytest.mark.parametrize("flags", [(), ("-mno-avx512f",)])
def test_every_float16_keeps_its_value(flags, monkeypatch):
    if flags and platform.machine() != "x86_64":
        pytest.skip("the flags are x86-64's")
    library = native.load(sparse.SOURCE, flags)
    monkeypatch.setattr(sparse, "_library", lambda: library)
    values = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.float16)
    values = values[values.isfinite()]
    weight = SparseWeight(values.float()[None], torch.zeros(1, len(values), dtype=torch.bool))
    found = sparse.expand(weight.kept, weight.values, len(values))[0]
    assert torch.equal(found, values.float())
    assert torch.equal(found.signbit(), values.signbit())


def test_a_layer_takes_the_kernel_for_few_tokens_and_for_many():
    weight, x = stored(33, 77), torch.randn(2, 20, 77)
    many, few = weight.linear(x, None), weight.linear(x[:, :5], None)
    torch.testing.assert_close(many, x @ weight.dequantize().T)
    torch.testing.assert_close(few, many[:, :5])


def test_results_do_not_depend_on_the_number_of_threads():
    weight, usual, results = stored(2000, 1024), torch.get_num_threads(), []
    x = torch.randn(13, 1024)
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(sparse.linear(x, weight.kept, weight.values, 1024))
    finally:
        torch.set_num_threads(usual)
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_what_does_not_fit_is_refused():
    weight = stored(4, 24)
    kept, values = weight.kept, weight.values
    x = torch.zeros(1, 24)
    for wrong, why in (
        (lambda: sparse.linear(x.double(), kept, values, 24), "float32 or bfloat16"),
        (lambda: sparse.linear(torch.zeros(1, 23), kept, values, 24), r"x must be \(..., 24\)"),
        (lambda: sparse.linear(x, kept, values, 24, torch.zeros(3)), r"bias \(4,\)"),
        (lambda: sparse.expand(kept, values, 25), r"the map must be \(R, 4\)"),
        (lambda: sparse.expand(kept, values.double(), 24), "values must be float16"),
        (lambda: sparse.expand(kept, values[1:], 24), "more or fewer places"),
    ):
        with pytest.raises(ValueError, match=why):
            wrong()
