"""How fast is our Triton product with 4-bit weights beside cuBLAS in bfloat16 on this GPU?

    python benchmarks/weight_only_gpu.py [--rounds 30] [--out weight_only_gpu.json]

W is 8192 x 28672 and 28672 x 8192, groups of 128 columns, 1 to 16 rows of x in bfloat16. Both run
in turn, round after round, with a cold L2 cache; the results are compared before anything is timed.
A ratio is cuBLAS's seconds / ours (above 1: ours is faster), medians over rounds with a 95 %
bootstrap interval; 3 is aimed at, 3.87 is what the bytes allow. GB/s count stored weights alone.

Exit status 2: no CUDA device, or no Triton; nothing was measured.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap
from tabulate import tabulate
from torch import Tensor
from torch.nn.functional import linear

from harness.environment import environment

SHAPES, ROWS, GROUP = ((8192, 28672), (28672, 8192)), (1, 2, 4, 8, 16), 128
TARGET = 3.0
L2_BYTES = 256 << 20  # written between calls: more than any L2 cache holds

Work = Callable[[Tensor], Tensor]


def works(rows: int, columns: int) -> dict[str, tuple[Work, int]]:
    """Our product and cuBLAS's with the same weights, and the bytes of their weights."""
    kernels = import_module("impls.compression.kernels.w4a16_triton")
    rng = torch.Generator("cuda").manual_seed(0)
    place: dict[str, Any] = {"generator": rng, "device": "cuda"}
    codes = torch.randint(16, (rows, columns), dtype=torch.uint8, **place)
    scales = torch.rand(rows, columns // GROUP, **place).mul(0.01).half()
    zeros = torch.randint(16, scales.shape, **place).half()
    prepared = kernels.prepare(codes, scales, zeros)
    group = (rows, columns // GROUP, GROUP)
    weight = scales.float()[..., None] * (codes.view(group) - zeros.float()[..., None])
    weight = weight.view(rows, columns).to(torch.bfloat16)
    return {
        "ours": (lambda x: kernels.linear(x, prepared), prepared.nbytes),
        "cuBLAS": (lambda x: linear(x, weight), weight.nbytes),
    }


def seconds(work: Work, x: Tensor, cache: Tensor) -> float:
    """Seconds on the device of one call."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    cache.zero_()
    start.record()
    work(x)
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def measure(pair: dict[str, tuple[Work, int]], x: Tensor, rounds: int) -> dict[str, Any]:
    """Seconds of both in turn, raw samples included, and how far apart their results are."""
    cache = torch.empty(L2_BYTES, dtype=torch.uint8, device="cuda")
    (mine, our_bytes), (theirs, their_bytes) = pair.values()
    expected = theirs(x).float()
    apart = ((mine(x).float() - expected).norm() / expected.norm()).item()
    for work in (mine, theirs) * 3:  # warm up, and let the tuner choose
        seconds(work, x, cache)
    samples = []
    for number in range(rounds):
        turn = 1 if number % 2 else -1  # who goes first alternates
        samples.append([seconds(work, x, cache) for work in (mine, theirs)[::turn]][::turn])
    a, b = np.array(samples).T
    interval = bootstrap((b / a,), np.median, n_resamples=2000, rng=0).confidence_interval
    return {
        "rows": len(x), "columns": x.shape[1], "target": TARGET, "relative_difference": apart,
        "ratio": float(np.median(b / a)), "interval": [interval.low, interval.high],
        "gb_s": our_bytes / float(np.median(a)) / 1e9,
        "cublas_gb_s": their_bytes / float(np.median(b)) / 1e9,
        "seconds": samples,
    }  # fmt: skip


def main() -> int:
    """Measure, print a table, write the samples and the environment."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("weight_only_gpu.json"))
    options = parser.parse_args()
    if not torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
        print("nothing measured: this needs a CUDA device and triton", file=sys.stderr)
        return 2
    found = []
    for shape, rows in product(SHAPES, ROWS):
        x = torch.randn(rows, shape[1], device="cuda", dtype=torch.bfloat16)
        found.append({"outputs": shape[0], **measure(works(*shape), x, options.rounds)})
    if worst := [f for f in found if f["relative_difference"] > 1e-2]:
        print(f"results differ: {worst}", file=sys.stderr)
        return 1
    table = [
        [f["outputs"], f["columns"], f["rows"], f"{f['gb_s']:.0f}", f"{f['cublas_gb_s']:.0f}",
         f"{f['ratio']:.2f} [{f['interval'][0]:.2f}, {f['interval'][1]:.2f}]"]
        for f in found
    ]  # fmt: skip
    print(tabulate(table, ["outputs", "inputs", "rows", "GB/s", "cuBLAS GB/s", "ratio"]))
    device = {"name": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    record = {"environment": environment() | {"device": device}, "rows": found}
    options.out.write_text(json.dumps(record, indent=1, default=str), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
