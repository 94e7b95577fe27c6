"""OBS against constrained least squares, OBD's saliencies, and one removal at a time."""

import pytest
import torch
from torch import nn

from impls.compression import OBC, OBD, OBS
from impls.compression import obd as by_diagonal
from impls.compression._hessian import inverse
from impls.compression.interface import LayerStatistics
from impls.compression.obs import saliencies

EXACT = {"rtol": 1e-11, "atol": 0}  # float64: C roundings of 1e-16, H of condition 1e3
R, C = 4, 24


def problem(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, C, generator=generator) @ torch.randn(C, C, generator=generator) / C**0.5
    linear = nn.Linear(C, R, bias=False)
    nn.init.normal_(linear.weight, generator=generator)
    statistics = LayerStatistics()
    statistics.add(x, frozenset({"hessian", "squares"}))
    return linear, statistics, x.double()


def test_a_saliency_is_the_error_of_the_best_weights_without_that_one():
    linear, statistics, x = problem()
    weight = linear.weight.detach().double()
    found = saliencies(weight, inverse(statistics.hessian).diagonal())
    for q in range(C):
        others = torch.arange(C) != q
        best = torch.linalg.lstsq(x[:, others], x @ weight.T).solution
        error = (x[:, others] @ best - x @ weight.T).square().sum(0)
        torch.testing.assert_close(found[:, q], error, **EXACT)


@pytest.mark.parametrize("seed", range(5))
def test_no_saliency_exceeds_obd_s_which_makes_up_for_nothing(seed):
    """1 / [H^-1]_qq <= H_qq."""
    linear, statistics, _ = problem(seed)
    weight = linear.weight.detach()
    surgeon = saliencies(weight.double(), inverse(statistics.hessian).diagonal())
    assert (surgeon < by_diagonal.saliencies(weight, statistics.squares)).all()


def test_where_inputs_do_not_act_together_both_say_and_do_the_same():
    linear, statistics, _ = problem()
    weight, squares = linear.weight.detach(), statistics.squares
    apart = LayerStatistics(1, hessian=torch.diag(2 * squares), squares=squares)
    surgeon = saliencies(weight.double(), inverse(apart.hessian).diagonal())
    torch.testing.assert_close(surgeon, by_diagonal.saliencies(weight, squares), **EXACT)
    damage = OBD().compress(linear, apart)
    assert torch.equal(OBS(damp=0.0).compress(linear, apart).dequantize(), damage.dequantize())


def test_one_weight_at_a_time_over_the_layer_is_optimal_brain_compression():
    """Saliencies from full inverses here, from merged traces of downdated rows there."""
    linear, statistics, _ = problem()
    surgeon = OBS(steps=R * C // 2).compress(linear, statistics)
    traced = OBC().compress(linear, statistics)
    assert torch.equal(surgeon.dequantize(), traced.dequantize())


def test_one_portion_is_the_lowest_saliencies_of_the_whole_layer():
    linear, statistics, _ = problem()
    small = OBS(steps=1, damp=0.0, sparsity=0.25).compress(linear, statistics)
    score = saliencies(linear.weight.detach().double(), inverse(statistics.hessian).diagonal())
    removed = small.weight.removed()
    assert score[removed].max() < score[~removed].min()


@pytest.mark.parametrize("options", [{"scope": "row"}, {"pattern": "2:4"}, {"pattern": "4:8"}])
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_portions_keep_to_rows_and_patterns(options, steps):
    linear, statistics, _ = problem()
    removed = OBS(steps=steps, **options).compress(linear, statistics).weight.removed()
    unit = int(options["pattern"].split(":")[1]) if "pattern" in options else C
    assert (removed.view(-1, unit).sum(1) == unit // 2).all()


def test_a_layer_is_pruned_in_at_least_one_portion():
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        OBS(steps=0)
