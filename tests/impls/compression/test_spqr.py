"""SpQR at its two ends; outliers against leaving each weight out; bytes against the formula."""

import pytest
import torch
from torch import nn

from impls.compression import GPTQ, RTN, SpQR
from impls.compression._bilevel import Levels, rounded
from impls.compression._columns import settled
from impls.compression._hessian import damped, upper_factor
from impls.compression.interface import CompressedLinear, LayerStatistics, Packed, PackedError
from impls.compression.spqr import fitted, sensitivity

R, C = 40, 64  # the last of three runs of rows is shorter


def linear(weight):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight)
    return layer


def reads(x):
    statistics = LayerStatistics()
    statistics.add(x, frozenset({"hessian"}))
    return statistics


def correlated(n=200, columns=C, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
    return torch.randn(n, columns, generator=generator) @ mixing


def some_weight(rows=R, columns=C, seed=1):
    """Normal weights with some that are far out."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    far = torch.rand(rows, columns, generator=generator) < 0.01
    return torch.where(far, 6 * weight, weight)


def loss(weight, changed, hessian):
    """(w - w^)^T H (w - w^) / 2 over all rows."""
    lost = (weight - changed).double()
    return float(((lost @ hessian) * lost).sum() / 2)


def compressed(technique, weight=None):
    weight = some_weight() if weight is None else weight
    return technique.compress(linear(weight), reads(correlated(columns=weight.shape[1])))


def test_without_outliers_it_is_the_column_loop_under_the_stored_scales():
    weight, statistics = some_weight(), reads(correlated())
    layer = compressed(SpQR(threshold=float("inf")), weight)
    assert len(layer.weight.values) == 0
    levels = layer.weight.inner.levels()

    def enter(first, _):
        place = first // 16
        own = Levels(levels.scale[:, [place]], levels.zero[:, [place]], levels.bits)
        return lambda _, column: own.values(own.codes(column[:, None]))[:, 0]

    factor = upper_factor(damped(statistics.hessian).matrix)
    assert torch.equal(layer.dequantize(), settled(weight, factor, enter, step=16))
    assert torch.equal(layer.dequantize(), compressed(SpQR(outliers=0.0), weight).dequantize())


@pytest.mark.parametrize("options", [{"threshold": 0.0}, {"outliers": 1.0}])
def test_with_every_weight_an_outlier_it_is_the_weight_in_float16(options):
    weight = some_weight().half().float()
    layer = compressed(SpQR(**options), weight)
    assert len(layer.weight.values) == weight.numel()
    assert torch.equal(layer.dequantize(), weight)


def test_what_float16_rounds_off_an_outlier_is_made_up_for_too():
    weight, statistics = some_weight(), reads(correlated())
    layer = SpQR(threshold=0.0).compress(linear(weight), statistics)
    factor = upper_factor(damped(statistics.hessian).matrix)
    halves = lambda _, __: lambda _, column: column.half().float()  # noqa: E731
    assert torch.equal(layer.dequantize(), settled(weight, factor, halves, step=C))
    assert not torch.equal(layer.dequantize(), weight.half().float())


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_sensitivity_is_what_leaving_each_weight_out_saves(bits):
    """Ranges fitted anew for each weight that is left out, those inside the range too."""
    group = some_weight(rows=50, columns=16).double()
    group[0] = 1.5  # both ends are the same weight
    group[1] = group[1].abs()  # 0 is an end
    pivots = torch.linspace(0.5, 2.0, 16, dtype=torch.float64)

    def error(part, weights):
        scale, zero = (x[:, None] for x in fitted(part, bits))
        codes = (part / scale + zero).round().clamp(0, 2**bits - 1)
        return (((codes - zero) * scale - part).square() / (2 * weights)).sum(1)

    expected = torch.empty_like(group)
    for j in range(16):
        others = [k for k in range(16) if k != j]
        expected[:, j] = error(group, pivots) - error(group[:, others], pivots[others])
    got = sensitivity(group, pivots, bits)
    torch.testing.assert_close(got, expected.clamp(min=0), atol=1e-12, rtol=0)


def test_sensitivity_is_squared_output_error_where_inputs_are_uncorrelated():
    """Then nothing else makes up for an error, and each weight inside the range saves its own."""
    x = torch.diag(torch.linspace(1, 3, 16))
    weight = some_weight(rows=8, columns=16)
    pivots = upper_factor(reads(x).hessian).diagonal().square()
    scale, zero = (s[:, None] for s in fitted(weight, 3))
    lost = ((weight / scale + zero).round().clamp(0, 7) - zero) * scale - weight
    saved = sensitivity(weight, pivots, 3)
    inside = torch.ones_like(weight, dtype=torch.bool)
    inside.scatter_(1, weight.argmax(1, keepdim=True), False)
    inside.scatter_(1, weight.argmin(1, keepdim=True), False)
    expected = (lost.double() @ x.double()).square()
    torch.testing.assert_close(saved.double()[inside], expected[inside], atol=1e-6, rtol=1e-5)


def test_the_error_falls_as_the_share_of_outliers_grows():
    weight, statistics = some_weight(rows=64, columns=128), reads(correlated(columns=128))
    layers = [compressed(SpQR(outliers=share), weight) for share in (0.0, 0.01, 0.05, 0.2, 1.0)]
    losses = [loss(weight, layer.dequantize(), statistics.hessian) for layer in layers]
    assert losses == sorted(losses, reverse=True)
    assert losses[1] < 0.8 * losses[0]  # the few that are far out cost most
    sizes = [layer.nbytes() for layer in layers]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_about_the_share_that_was_asked_for_is_kept(share):
    weight = some_weight(rows=128, columns=256)
    layer = compressed(SpQR(outliers=share), weight)
    assert 0.5 * share < len(layer.weight.values) / weight.numel() < 2 * share


def test_a_threshold_is_of_one_token():
    """Twice the tokens of the same kind: twice the squared error, the same outliers."""
    x, weight = correlated(), some_weight()
    once = SpQR(threshold=0.05).compress(linear(weight), reads(x))
    twice = SpQR(threshold=0.05).compress(linear(weight), reads(torch.cat((x, x))))
    assert 0 < len(once.weight.values) < weight.numel() / 2
    torch.testing.assert_close(once.dequantize(), twice.dequantize())


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_dense_codes_and_sparse_outliers_add_up_to_the_layer():
    layer = compressed(SpQR(outliers=0.05))
    stored = layer.weight
    sparse = torch.sparse_csr_tensor(
        stored.starts.long(),
        stored.places.long(),
        stored.values.float(),
        (R, C),
        check_invariants=True,
    ).to_dense()
    dense = stored.inner.dequantize() * (sparse == 0)
    assert torch.equal(layer.dequantize(), dense + sparse)
    x = correlated(seed=3).double()
    exact = x @ dense.double().T + x @ sparse.double().T
    torch.testing.assert_close(layer(x), exact, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("bits", "group", "run"), [(3, 16, 16), (4, 32, 8), (2, 8, 64)])
def test_bytes_are_those_of_the_formula(bits, group, run):
    rows, columns = 64, 256
    layer = compressed(SpQR(bits=bits, group=group, range_rows=run), some_weight(rows, columns))
    share = len(layer.weight.values) / (rows * columns)
    expected = bits + (3 + 3) / group + 64 / (group * run) + 32 * share
    pointers = 32 * (rows + 1) / (rows * columns)
    assert layer.bits_per_parameter() == pytest.approx(expected + pointers, rel=1e-12)
    packed = layer.pack()
    assert sum(tensor.nbytes for tensor in packed.tensors.values()) == layer.nbytes()


def test_numbers_of_a_run_are_within_half_a_step_of_what_is_stored():
    x = torch.rand(R, 7, generator=torch.Generator().manual_seed(0)) + 0.5
    stored = rounded(x, bits=3, run=16)
    assert stored.ends.shape == (2, 3, 7)
    low, step = stored.ends.repeat_interleave(16, 1)[:, :R]
    unit = 2.0**-10  # of float16, for numbers from 1 to 2
    assert ((stored.values() - x).abs() <= step / 2 + unit).all()
    assert (stored.values() >= low).all()
    constant = rounded(torch.full((5, 2), 0.25), bits=3, run=16)
    assert (constant.values() == 0.25).all()


def test_it_errs_less_than_gptq_and_rounding_in_fewer_bits():
    weight, statistics = some_weight(rows=128, columns=256), reads(correlated(columns=256))
    techniques = (SpQR(), GPTQ(bits=3, group=16), RTN(bits=3, group=16))
    ours, gptq, rtn = (compressed(technique, weight) for technique in techniques)
    assert ours.bits_per_parameter() < gptq.bits_per_parameter()
    errors = [loss(weight, x.dequantize(), statistics.hessian) for x in (ours, gptq, rtn)]
    assert errors == sorted(errors)


def test_groups_and_columns_of_zeros_are_no_trouble():
    weight, x = some_weight(), correlated()
    weight[:, 16:32] = 0.0
    weight[7] = 0.0
    x[:, 40] = 0.0
    got = SpQR(outliers=0.0).compress(linear(weight), reads(x)).dequantize()
    assert torch.isfinite(got).all()
    assert (got[:, 16:32] - weight[:, 16:32]).abs().max() < weight.abs().max()


def test_what_cannot_be_compressed_is_refused():
    weight, x = some_weight(), correlated()
    broken = weight.clone()
    broken[2, 3] = torch.inf
    with pytest.raises(ValueError, match=r"a weight has 1 numbers that are not finite.*\(2, 3\)"):
        compressed(SpQR(), broken)
    with pytest.raises(ValueError, match="groups of 24 do not divide 64 inputs"):
        compressed(SpQR(group=24), weight)
    with pytest.raises(ValueError, match="singular: raise damp"):
        SpQR(damp=0.0).compress(linear(weight), reads(x[:20]))
    with pytest.raises(ValueError, match="does not fit float16"):
        compressed(SpQR(outliers=1.0), 1e5 * weight)
    with pytest.raises(ValueError, match="does not fit float16"):
        compressed(SpQR(outliers=0.0), 1e6 * weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1}, "bits must be from 2 to 8, got 1"),
        ({"scale_bits": 9}, "scale_bits must be from 2 to 8, got 9"),
        ({"zero_bits": 0}, "zero_bits must be from 2 to 8, got 0"),
        ({"group": 1}, "group must be at least 2, got 1"),
        ({"range_rows": 0}, "range_rows must be at least 1, got 0"),
        ({"block": 0}, "block must be at least 1, got 0"),
        ({"outliers": 1.5}, "outliers is a share, from 0 to 1, got 1.5"),
        ({"threshold": -1.0}, "threshold must be at least 0, got -1.0"),
        ({"damp": -1.0}, "damp must be at least 0"),
    ],
)
def test_options_out_of_bounds_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SpQR(**options)


@pytest.mark.parametrize(
    ("name", "index", "value"), [("places", 0, C), ("starts", 1, 10_000), ("starts", -1, 0)]
)
def test_a_damaged_place_is_found_when_it_is_read(name, index, value):
    packed = compressed(SpQR(outliers=0.05)).pack()
    tensors = {key: tensor.clone() for key, tensor in packed.tensors.items()}
    tensors[f"weight.{name}"][index] = value
    with pytest.raises(PackedError, match="outlier"):
        CompressedLinear.unpack(Packed(packed.header, tensors))
