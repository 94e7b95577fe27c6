"""OBC's merging of traces against the heap of its definition, and against rows that lose alike."""

import heapq
from itertools import product

import pytest
import torch
from torch import nn

from impls.compression import OBC, ExactOBS
from impls.compression._greedy import Trace, greedy
from impls.compression._hessian import damped, inverse
from impls.compression.interface import LayerStatistics
from impls.compression.obc import merged

R, C = 16, 48


def traces(losses):
    """Rows that lose their columns from left to right at given losses."""
    losses = torch.as_tensor(losses, dtype=torch.float64)
    return Trace(torch.zeros_like(losses), torch.arange(losses.shape[1]).expand_as(losses), losses)


def by_heap(losses, n):
    """How many each row loses if the cheapest next removal is always taken."""
    counts = [0] * len(losses)
    heap = [(float(row[0]), r) for r, row in enumerate(losses)]
    heapq.heapify(heap)
    for _ in range(n):
        _, r = heapq.heappop(heap)
        counts[r] += 1
        if counts[r] < len(losses[r]):
            heapq.heappush(heap, (float(losses[r][counts[r]]), r))
    return counts


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_merging_is_the_heap_of_the_definition(share, seed):
    """Losses up and down, so that cheap ones wait behind dear ones."""
    losses = torch.rand(5, 12, generator=torch.Generator().manual_seed(seed))
    removed = merged(traces(losses), share)
    assert removed.sum(1).tolist() == by_heap(losses, round(share * 60))
    assert (removed.sort(1, descending=True).values == removed).all()  # each row's first ones


def test_where_losses_only_grow_no_other_counts_lose_less():
    losses = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)).sort(1).values
    removed = merged(traces(losses), 0.5)
    reached = torch.nn.functional.pad(losses.cumsum(1), (1, 0))
    least = min(
        float(sum(reached[r, n] for r, n in enumerate(counts)))
        for counts in product(range(5), repeat=3)
        if sum(counts) == 6
    )
    assert float(losses[removed].sum()) == pytest.approx(least, rel=1e-6)


def problem():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, C, generator=generator) @ torch.randn(C, C, generator=generator) / C**0.5
    linear = nn.Linear(C, R)
    nn.init.normal_(linear.weight, generator=generator)
    with torch.no_grad():
        linear.weight *= torch.logspace(-0.5, 0.5, R)[:, None]  # rows that matter more and less
    statistics = LayerStatistics()
    statistics.add(x, frozenset({"hessian"}))
    return linear, statistics


def test_rows_that_matter_less_lose_more_and_the_layer_loses_less_than_by_equal_shares():
    linear, statistics = problem()
    left = inverse(damped(statistics.hessian).matrix)
    trace = greedy(linear.weight.detach(), left, n=C, period=C)
    removed = merged(trace, 0.5)
    assert removed.sum() == R * C // 2
    assert removed[: R // 2].sum() > removed[R // 2 :].sum()
    lost = trace.losses[removed.gather(1, trace.places)].sum()
    assert lost < trace.losses[:, : C // 2].sum()


def test_the_weights_stored_lose_what_the_traces_say():
    linear, statistics = problem()
    matrix = damped(statistics.hessian).matrix
    trace = greedy(linear.weight.detach(), inverse(matrix), n=C, period=C)
    small = OBC(value_dtype="float32").compress(linear, statistics)
    removed = small.weight.removed()
    assert torch.equal(removed, merged(trace, 0.5))
    lost = linear.weight.detach().double() - small.dequantize().double()
    told = float(trace.losses[removed.gather(1, trace.places)].sum())
    assert float(((lost @ matrix) * lost).sum() / 2) == pytest.approx(told, rel=1e-6)


def test_one_row_is_exact_obs():
    linear, statistics = problem()
    row = nn.Linear(C, 1, bias=False)
    row.weight = nn.Parameter(linear.weight[:1].detach())
    one, other = (technique().compress(row, statistics) for technique in (OBC, ExactOBS))
    assert torch.equal(one.dequantize(), other.dequantize())


def test_a_pattern_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"pattern '2:4' fixes what each row loses.*ExactOBS"):
        OBC(pattern="2:4")
