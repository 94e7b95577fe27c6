"""How fast is our Triton FlashAttention beside torch's flash SDPA on this GPU?

    python benchmarks/flash_gpu.py [--rounds 20] [--out flash_gpu.json]

bfloat16, head width 128, causal, 4096 to 16384 tokens, 16384 tokens in all. Both run in turn, round
after round, on the same inputs, with a cold L2 cache; the results are compared before anything is
timed. A ratio is SDPA's seconds / ours (above 1: ours is faster), medians over rounds with a 95 %
bootstrap interval. TFLOP/s count half of 4 N^2 d a head forward, 2.5 times that backward.

Exit status 2: no CUDA device, or no Triton; nothing was measured.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap
from tabulate import tabulate
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from harness.environment import environment
from impls.attention import FlashAttention

LENGTHS, TOKENS, HEADS, WIDTH = (4096, 8192, 16384), 16384, 16, 128
TARGETS = {"forward": 0.9, "backward": 0.8}
L2_BYTES = 256 << 20  # written between calls: more than any L2 cache holds

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Our kernel."""
    return FlashAttention(engine="triton").attend(q, k, v)


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's, its flash backend or an error."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return scaled_dot_product_attention(q, k, v, is_causal=True)


def inputs(length: int) -> list[Tensor]:
    """q, k, v and the gradient of the output, as a layer hands them over."""
    rng = torch.Generator("cuda").manual_seed(0)
    size = (TOKENS // length, length, HEADS, WIDTH)
    made = [
        torch.randn(size, generator=rng, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
        for _ in range(4)
    ]
    return [*(x.requires_grad_() for x in made[:3]), made[3]]


def works(attend: Attend, length: int) -> dict[str, Callable[[], Any]]:
    """The two passes, each as something to call."""
    q, k, v, d_out = inputs(length)
    out = attend(q, k, v)

    def forward() -> Tensor:
        with torch.no_grad():
            return attend(q, k, v)

    def backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(out, (q, k, v), d_out, retain_graph=True)

    return {"forward": forward, "backward": backward}


def differences(length: int) -> list[float]:
    """Norm of the difference of out, dq, dk, dv over the norm of SDPA's."""
    results = []
    for attend in (ours, sdpa):
        work = works(attend, length)
        results.append([work["forward"](), *work["backward"]()])
    pairs = [(x.float(), y.float()) for x, y in zip(*results, strict=True)]
    return [((x - y).norm() / y.norm()).item() for x, y in pairs]


def seconds(work: Callable[[], Any], cache: Tensor) -> float:
    """Seconds on the device of one call."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    cache.zero_()
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def measure(length: int, rounds: int) -> list[dict[str, Any]]:
    """One row for each pass, raw samples included."""
    cache = torch.empty(L2_BYTES, dtype=torch.uint8, device="cuda")
    mine, theirs, rows = works(ours, length), works(sdpa, length), []
    for name in mine:
        pair = (mine[name], theirs[name])
        for work in pair * 3:  # warm up, and let the tuner choose
            seconds(work, cache)
        samples = []
        for number in range(rounds):
            turn = 1 if number % 2 else -1  # who goes first alternates
            samples.append([seconds(work, cache) for work in pair[::turn]][::turn])
        a, b = np.array(samples).T
        interval = bootstrap((b / a,), np.median, n_resamples=2000, rng=0).confidence_interval
        flops = 2 * TOKENS * length * HEADS * WIDTH * (1 if name == "forward" else 2.5)
        rows.append(
            {
                "pass": name, "length": length, "target": TARGETS[name],
                "ratio": float(np.median(b / a)), "interval": [interval.low, interval.high],
                "tflops": flops / float(np.median(a)) / 1e12,
                "sdpa_tflops": flops / float(np.median(b)) / 1e12,
                "seconds": samples,
            }
        )  # fmt: skip
    return rows


def main() -> int:
    """Measure, print a table, write the samples and the environment."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("flash_gpu.json"))
    options = parser.parse_args()
    if not torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
        print("nothing measured: this needs a CUDA device and triton", file=sys.stderr)
        return 2
    apart = {length: differences(length) for length in LENGTHS}
    if worst := [length for length, found in apart.items() if max(found) > 2e-2]:
        print(f"nothing measured: results differ at lengths {worst}: {apart}", file=sys.stderr)
        return 1
    rows = [row for length in LENGTHS for row in measure(length, options.rounds)]
    table = [
        [r["pass"], r["length"], f"{r['tflops']:.0f}", f"{r['sdpa_tflops']:.0f}",
         f"{r['ratio']:.3f} [{r['interval'][0]:.3f}, {r['interval'][1]:.3f}]", r["target"]]
        for r in rows
    ]  # fmt: skip
    print(tabulate(table, ["pass", "N", "TFLOP/s", "SDPA", "ratio", "target"]))
    device = {"name": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    found = {"environment": environment() | {"device": device}, "rows": rows}
    found["relative_differences"] = apart
    options.out.write_text(json.dumps(found, indent=1, default=str), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
