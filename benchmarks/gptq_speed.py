"""How much longer does GPTQ of a layer take than its Cholesky factor and matrix products alone?

    python benchmarks/gptq_speed.py [--rounds 5] [--threads 1 2] [--sides 2048 4096]

A square weight, 4 bits in groups of 128, and the Hessian of random tokens, which is there before.
What GPTQ cannot do without is the factor of the inverse Hessian (Cholesky and a triangular solve in
float64) and a product for each block of 128 columns, that spreads its errors over the columns to
come. The rest is ranges, rounding and the columns inside a block. Both take turns, round after
round. A ratio has its 95 % bootstrap interval; at most 2 is aimed at. Times of one thread are what
it ran; those of more are what passed, and need an idle machine.
"""

import argparse
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

from harness.statistics import ratio
from impls.compression import GPTQ
from impls.compression._hessian import damped, upper_factor
from impls.compression.interface import LayerStatistics

BLOCK, GROUP = 128, 128


def bare(weight: Tensor, hessian: Tensor) -> Tensor:
    """The factor and the products, with errors that are the weight itself."""
    factor = upper_factor(damped(hessian).matrix).to(weight.dtype)
    columns = weight.T.contiguous()
    errors = columns[:BLOCK].clone()
    for stop in range(BLOCK, len(columns) + 1, BLOCK):
        columns[stop:].addmm_(factor[stop - BLOCK : stop, stop:].T, errors, alpha=-1e-3)
    return columns


def measure(side: int, rounds: int) -> list[Any]:
    """One row of the table."""
    torch.manual_seed(0)
    linear, statistics = nn.Linear(side, side, bias=False), LayerStatistics()
    statistics.add(torch.randn(2 * side, side), frozenset({"hessian"}))
    recipe, weight = GPTQ(bits=4, group=GROUP, block=BLOCK), linear.weight.detach()
    works: dict[str, Callable[[], object]] = {
        "gptq": lambda: recipe.compress(linear, statistics),
        "bare": lambda: bare(weight, statistics.hessian),
    }
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name in list(works)[:: 1 if number % 2 else -1]:  # who goes first alternates
            start = clock()
            works[name]()
            if number:
                seconds[name].append(clock() - start)
    middle = [sorted(samples)[rounds // 2] for samples in seconds.values()]
    value, low, high = ratio(seconds["gptq"], seconds["bare"])
    return [
        torch.get_num_threads(), side, *(f"{s:.2f}" for s in middle),
        f"{value:.2f} [{low:.2f}, {high:.2f}]",
    ]  # fmt: skip


def main() -> None:
    """Print one markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sides", type=int, nargs="+", default=[2048, 4096])
    options = parser.parse_args()
    rows = []
    for threads, side in product(options.threads, options.sides):
        torch.set_num_threads(threads)
        rows.append(measure(side, options.rounds))
    headers = ["threads", "side", "GPTQ s", "factor and products s", "ratio"]
    print(tabulate(rows, headers, "github"))


if __name__ == "__main__":
    main()
