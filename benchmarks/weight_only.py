"""How fast are our weight-only linear layers on CPU beside torch's int4, int8 and bfloat16?

    python benchmarks/weight_only.py [--rounds 15] [--threads 1 2] [--rows 1 2 4 ...] [--side 4096]

y = x Wᵀ of one token or many; x is bfloat16, W is a square. int4 has a scale and a zero for 64
columns, int8 one for a row, like torch's int8. Ours and torch's take turns, round after round. A
turn is some products one after another, like those of a model's layers: after a pause, so that no
thread of the turn before still spins, and each with weights that have left the caches. A column is
the time of a product in ms, or a ratio of times with its 95 % bootstrap interval (above 1: ours is
faster). Times of one thread are what it ran; those of more are what passed, and need an idle
machine:

    int4 / ours     torch's `_weight_int4pack_mm_for_cpu` over our int4
    bf16 / ours     torch's bfloat16 `linear` over our int4
    int8 / ours     torch's `_weight_int8pack_mm` over our int8
    of bandwidth    bytes of our int4 weights a second, of what summing memory reaches
"""

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice, product
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor
from torch.nn.functional import linear

from harness.statistics import Estimate, ratio
from impls.compression.kernels import weight_only

GROUP = 64
CACHES = 64 << 20  # bytes that copies of weights fill: twice a large cache
CALLS = 6  # products in a turn
PAUSE_S = 0.01
ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)

Product = Callable[[Tensor], Any]


def ours(codes: Tensor, scales: Tensor, zeros: Tensor, bits: int) -> tuple[Product, int]:
    """Our product with these weights, and the bytes it reads."""
    prepared = weight_only.prepare(codes, scales, zeros, bits=bits)
    return lambda x: weight_only.linear(x, prepared), prepared.nbytes


def torch_int4(codes: Tensor, scales: Tensor) -> tuple[Product, int]:
    """The product of torch's int4, whose zeros are in the middle."""
    packed = torch._convert_weight_to_int4pack_for_cpu(codes.int(), 1)
    pairs = torch.stack((scales, torch.zeros_like(scales)), -1).transpose(0, 1)
    pairs = pairs.to(torch.bfloat16).contiguous()
    n_bytes = packed.nbytes + pairs.nbytes
    return lambda x: torch._weight_int4pack_mm_for_cpu(x, packed, GROUP, pairs), n_bytes


def torch_int8(codes: Tensor, scales: Tensor) -> tuple[Product, int]:
    """The product of torch's int8, one scale a row."""
    signed, scale = (codes.int() - 128).to(torch.int8), scales[:, 0].to(torch.bfloat16)
    return lambda x: torch._weight_int8pack_mm(x, signed, scale), signed.nbytes


def torch_bf16(side: int) -> tuple[Product, int]:
    """The product of torch with weights of 16 bits."""
    weight = torch.randn(side, side, dtype=torch.bfloat16)
    return lambda x: linear(x, weight), weight.nbytes


def stream(n_bytes: int) -> tuple[Product, int]:
    """No product: a sum that reads as much memory."""
    memory = torch.from_numpy(np.ones(n_bytes // 8, dtype=np.int64))  # it is in large pages
    return lambda x: memory.sum(), memory.nbytes


def products(side: int) -> dict[str, Callable[[], tuple[Product, int]]]:
    """Makers of products with weights of their own, by name."""
    scales = torch.rand(side, side // GROUP).mul(0.01).bfloat16().float()
    four, eight = (torch.randint(2**b, (side, side), dtype=torch.uint8) for b in (4, 8))
    zeros = torch.full_like(scales, 8.0)
    row = scales[:, :1].contiguous()
    return {
        "int4": lambda: ours(four, scales, zeros, 4),
        "int8": lambda: ours(eight, row, torch.full_like(row, 128.0), 8),
        "torch int4": lambda: torch_int4(four, scales),
        "torch int8": lambda: torch_int8(eight, row),
        "torch bf16": lambda: torch_bf16(side),
        "read": lambda: stream(CACHES),
    }


def cold(make: Callable[[], tuple[Product, int]]) -> tuple[Iterator[Product], int]:
    """The same product over and over, with weights that have left the caches."""
    first, n_bytes = make()
    copies = [first, *(make()[0] for _ in range(CACHES // n_bytes))]
    return cycle(copies), n_bytes


def seconds(works: dict[str, Iterator[Product]], x: Tensor, rounds: int) -> dict[str, list[float]]:
    """Seconds of a product in every round, after one that is not counted."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    samples: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name in list(works)[:: 1 if number % 2 else -1]:  # who goes first alternates
            time.sleep(PAUSE_S)
            start = clock()
            for work in islice(works[name], CALLS):
                work(x)
            if number:
                samples[name].append((clock() - start) / CALLS)
    return samples


def median(samples: list[float]) -> float:
    """The middle sample."""
    return sorted(samples)[len(samples) // 2]


def shown(estimate: Estimate) -> str:
    """A ratio and its interval."""
    value, low, high = (x or float("nan") for x in estimate)
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def measure(
    works: dict[str, tuple[Iterator[Product], int]], side: int, rows: int, rounds: int
) -> list[Any]:
    """One row of the table."""
    x = torch.randn(rows, side, dtype=torch.bfloat16)
    times = seconds({name: work for name, (work, _) in works.items()}, x, rounds)
    speed = {name: works[name][1] / median(times[name]) for name in ("int4", "read")}
    return [
        torch.get_num_threads(), rows,
        *(f"{1000 * median(times[name]):.2f}" for name in works if name != "read"),
        shown(ratio(times["torch int4"], times["int4"])),
        shown(ratio(times["torch bf16"], times["int4"])),
        shown(ratio(times["torch int8"], times["int8"])),
        f"{speed['int4'] / speed['read']:.0%}",
    ]  # fmt: skip


def main() -> None:
    """Print one markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--side", type=int, default=4096)
    options = parser.parse_args()
    works = {name: cold(make) for name, make in products(options.side).items()}
    table = []
    for threads, rows in product(options.threads, options.rows):
        torch.set_num_threads(threads)
        table.append(measure(works, options.side, rows, options.rounds))
    times = [f"{name} ms" for name in works if name != "read"]
    headers = ["threads", "rows", *times, "int4 / ours", "bf16 / ours", "int8 / ours"]
    print(tabulate(table, [*headers, "of bandwidth"], "github"))


if __name__ == "__main__":
    main()
