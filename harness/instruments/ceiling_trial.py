"""The most this machine does in a second, measured: arithmetic of a matrix product, memory traffic.

A ceiling is an upper bound, so the best of everything tried counts: several sizes, several rounds,
copying and reading, and for 16-bit types on a CPU also float32, which a technique may compute in.
Run in a process of its own (harness/ceilings.py), whose memory and threads are nobody
else's: `python -m harness.instruments.ceiling_trial REQUEST`, JSON in and out.
"""

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import torch

from harness.instruments.device import timer_for

SIZES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
BUDGET_S = 0.8  # of arithmetic in one type, and again of memory traffic
LONGEST_S = 0.4  # a size whose product would take longer is not tried
LEAST_BYTES = 1 << 28  # of what is copied, at least
CACHES = 4  # what is copied is so many times the last-level cache


def arithmetic(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second of the fastest square product."""
    best = 0.0
    for n in SIZES[device]:
        if best and 2 * n**3 / best > LONGEST_S:
            break
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        best = max(best, 2 * n**3 / _fastest(device, partial(torch.mm, a, b, out=out)))
    return best


def traffic(device: str, cache_bytes: int) -> float:
    """Bytes a second of copying (read and written both count) or reading, whichever is more."""
    n_bytes = max(LEAST_BYTES, CACHES * cache_bytes)
    source = torch.ones(n_bytes // 4, device=device)
    target = torch.empty_like(source)
    copied = 2 * n_bytes / _fastest(device, lambda: target.copy_(source))
    return max(copied, n_bytes / _fastest(device, lambda: torch.sum(source)))


def _fastest(device: str, work: Callable[[], object]) -> float:
    """Seconds of the fastest call, after one to warm up."""
    timer = timer_for(device, flush=False)
    best, start = timer(work), perf_counter()
    while perf_counter() - start < BUDGET_S / len(SIZES[device]):
        best = min(best, timer(work))
    return best


def main(request: dict[str, Any]) -> dict[str, float]:
    """Measure on the cores, threads, device and type that are asked for."""
    device = request["device"]
    if request["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request["cores"])
    torch.set_num_threads(request["threads"])
    dtypes = {getattr(torch, request["dtype"])}
    if device == "cpu" and request["dtype"] in {"float16", "bfloat16"}:
        dtypes.add(torch.float32)
    cache_bytes = request["cache_bytes"]
    if device == "cuda":
        cache_bytes = int(torch.cuda.get_device_properties().L2_cache_size)
    return {
        "flops": max(arithmetic(device, dtype) for dtype in dtypes),
        "bandwidth": traffic(device, cache_bytes),
        "cache_bytes": cache_bytes,
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
