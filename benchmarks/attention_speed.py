"""How fast is our block-sparse attention on CPU beside torch's, dense and in a window?

    python benchmarks/attention_speed.py [--rounds 9] [--threads 1 2] [--lengths 2048 4096]

8 heads of width 64, one sequence, causal; forward and backward, ours and torch's SDPA in turn,
round after round. A column is a ratio of medians with its 95 % bootstrap interval:

    dense       torch / ours, both dense causal (above 1: ours is faster)
    of ideal    what a window of 512 saves of what it could save: time of dense attention, ours or
                torch's, times the share of blocks it keeps, over the time in the window
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from harness.statistics import Estimate, ratio
from impls.attention._layout import BlockLayout, Everything, layout
from impls.attention.kernels import block_sparse_cpu

HEADS, WIDTH, WINDOW = 8, 64, 512
SCALE = WIDTH**-0.5

Work = Callable[[], Any]


@dataclass(frozen=True)
class Window:
    """A query reads itself and what lies less than WINDOW keys before it."""

    n_heads: int = 1

    def sees(self, i: Tensor, j: Tensor, head: Any) -> Tensor:
        """Whether j is near enough."""
        return i - j < WINDOW

    def spans(self, first: int, last: int) -> Sequence[tuple[int, int]]:
        """From the first query's window to the last query."""
        return ((first - WINDOW + 1, last + 1),)


def forwards(q: Tensor, k: Tensor, v: Tensor, layouts: dict[str, BlockLayout]) -> dict[str, Work]:
    """Forward passes to time, by name."""
    works: dict[str, Work] = {
        name: lambda kept=kept: block_sparse_cpu.forward(q, k, v, kept, scale=SCALE)
        for name, kept in layouts.items()
    }
    works["torch"] = lambda: scaled_dot_product_attention(q, k, v, is_causal=True)
    return works


def backwards(q: Tensor, k: Tensor, v: Tensor, layouts: dict[str, BlockLayout]) -> dict[str, Work]:
    """Backward passes to time, by name, each after its own forward pass."""
    grad = torch.randn_like(q)
    works: dict[str, Work] = {}
    for name, kept in layouts.items():
        made = block_sparse_cpu.forward(q, k, v, kept, scale=SCALE)
        works[name] = lambda kept=kept, made=made: block_sparse_cpu.backward(
            grad, q, k, v, *made, kept, scale=SCALE
        )
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    out = scaled_dot_product_attention(*leaves, is_causal=True)
    works["torch"] = lambda: torch.autograd.grad(out, leaves, grad, retain_graph=True)
    return works


def seconds(works: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of wall clock of every work in every round, after one that is not counted."""
    samples: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        names = list(works)[:: 1 if number % 2 else -1]  # who goes first alternates
        for name in names:
            start = time.perf_counter()
            works[name]()
            if number:
                samples[name].append(time.perf_counter() - start)
    return samples


def shown(estimate: Estimate, factor: float = 1.0) -> str:
    """A ratio and its interval."""
    value, low, high = (factor * (x or float("nan")) for x in estimate)
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def measure(dtype: torch.dtype, length: int, rounds: int) -> list[list[Any]]:
    """Two rows, forward and backward."""
    q, k, v = (torch.randn(1, HEADS, length, WIDTH).to(dtype) for _ in range(3))
    rules = {"dense": Everything(), "window": Window()}
    layouts = {
        name: layout(rule, length, length, causal=True, offset=0) for name, rule in rules.items()
    }
    share = len(layouts["window"].cols) / len(layouts["dense"].cols)
    rows = []
    for name, works, products in (("forward", forwards, 2), ("backward", backwards, 5)):
        times = seconds(works(q, k, v, layouts), rounds)
        dense, window, theirs = times["dense"], times["window"], times["torch"]
        flops = products * HEADS * WIDTH * length**2  # half of 2 T² d each: causal
        rows.append([
            str(dtype).removeprefix("torch."), torch.get_num_threads(), length, name,
            *(f"{flops / sorted(x)[len(x) // 2] / 1e9:.0f}" for x in (dense, theirs)),
            shown(ratio(theirs, dense)),
            *(shown(ratio(x, window), share) for x in (dense, theirs)),
        ])  # fmt: skip
    return rows


def main() -> None:
    """Print one markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 4096])
    options = parser.parse_args()
    rows = []
    for threads, dtype in product(options.threads, (torch.float32, torch.bfloat16)):
        torch.set_num_threads(threads)
        for length in options.lengths:
            rows += measure(dtype, length, options.rounds)
    headers = ["dtype", "threads", "length", "pass", "ours GFLOP/s", "torch GFLOP/s", "dense"]
    print(tabulate(rows, [*headers, "of ideal (ours)", "of ideal (torch)"], "github"))


if __name__ == "__main__":
    main()
