"""How fast is attention, forward, backward and decoding, beside torch's fused kernel?

Everything is compared on the same inputs, taking turns. `ideal` is dense causal time times the
share of blocks a technique keeps: what a perfect sparse kernel would take. The ceiling is a matrix
product of 1024 x 1024 in the same type, measured among the rest. GFLOP/s follow from each
technique's formula; a block's time includes its projections, and so does what it is compared with.
`peer` races another library too, forward, for FlexAttention has no backward pass on CPUs.
`crossover_length` is where forward begins to beat torch's; none where it never does.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from harness.card import Metric, Suite
from harness.instruments import Instruments, Samples
from impls.attention.interface import AttentionKernel, Work
from suites._attention import DTYPES, adopted, decoding, shape_of, sides, work_of
from suites._race import milliseconds, ours_over_peer, over
from suites._scaling import crossover, slope

Numbers = dict[str, float | Samples | None]

SUITE = Suite(
    title="Attention throughput",
    question="How fast is it over the length, forward, backward and decoding, beside torch's own?",
    families=("attention",),
    baseline="attention/full",
    timing=True,
    metrics=(
        Metric(name="forward_ms", unit="ms", better="lower", kind="timing"),
        Metric(name="backward_ms", unit="ms", better="lower", kind="timing"),
        Metric(name="decode_ms", unit="ms", better="lower", kind="timing"),
        Metric(name="forward_gflop_s", unit="GFLOP/s", better="higher", kind="timing"),
        Metric(name="ceiling_share", unit="1", better="higher", kind="timing"),
        Metric(name="time_slope", unit="1", better="lower", kind="timing"),
        Metric(name="decode_slope", unit="1", better="lower", kind="timing"),
        Metric(name="crossover_length", unit="tokens", better="lower", kind="timing"),
        Metric(name="sdpa_over_ours_forward", unit="1", better="higher", kind="timing"),
        Metric(name="sdpa_over_ours_backward", unit="1", better="higher", kind="timing"),
        Metric(name="peer_over_ours_forward", unit="1", better="higher", kind="timing"),
        Metric(name="ideal_share_forward", unit="1", better="higher", kind="timing"),
        Metric(name="ideal_share_backward", unit="1", better="higher", kind="timing"),
        Metric(name="kept_share", unit="1", better="neither", kind="count"),
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One size of attention."""

    n_tokens: int = 2048
    n_heads: int = 8
    d_head: int = 64
    dtype: str = "float32"
    causal: bool = True
    peer: str = ""  # a peer of the technique, as attention/peers/flex
    rounds: int = 9
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_tokens < 64:
            raise ValueError(f"n_tokens must be at least 64, got {self.n_tokens}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if min(self.n_heads, self.d_head, self.rounds) < 1:
            raise ValueError("n_heads, d_head and rounds must be at least 1")


def measure(technique: Any, setting: Setting, instruments: Instruments) -> Numbers:
    """Race the technique against dense attention: whole, backward, over lengths, decoding."""
    race = partial(instruments.interleave, rounds=setting.rounds, seed=setting.seed)
    work = _work(technique, setting, setting.n_tokens)
    ours, dense, *peers = sides(
        technique, work, *adopted(setting.peer, technique), seed=setting.seed
    )
    square = torch.randn(1024, 1024).to(DTYPES[setting.dtype])
    works = [side.forward for side in (ours, dense, *peers)]
    forward, reference, *others, ceiling = race(*works, lambda: square @ square)
    differentiable = technique.capabilities.backward
    backward = race(*([ours.backward(), dense.backward()] if differentiable else []))
    flops, top = technique.flops(work), 2 * 1024**3 / float(np.median(ceiling))
    n_bytes = technique.min_bytes(work)
    needs = partial(instruments.needs, dtype=setting.dtype)
    needs("forward_ms", flops=flops, bytes=n_bytes)
    needs("backward_ms", flops=2 * flops, bytes=2 * n_bytes)  # a gradient for each factor
    kept = technique.kept_share(work) if isinstance(technique, AttentionKernel) else 1.0
    instruments.note(
        level="kernel" if isinstance(technique, AttentionKernel) else "block",
        flops=flops, threads=torch.get_num_threads(), matmul_gflop_s=top / 1e9,
    )  # fmt: skip
    faster, faster_backward = over(reference, forward), ours_over_peer(backward[::-1])
    return {
        "forward_ms": milliseconds(forward),
        "backward_ms": milliseconds(backward[0]) if backward else None,
        "forward_gflop_s": [flops / s / 1e9 for s in forward],
        "ceiling_share": [flops / s / top for s in forward],
        "sdpa_over_ours_forward": faster,
        "sdpa_over_ours_backward": faster_backward,
        "peer_over_ours_forward": over(others[0], forward) if others else None,
        "kept_share": kept,
        "ideal_share_forward": [kept * ratio for ratio in faster],
        "ideal_share_backward": faster_backward and [kept * ratio for ratio in faster_backward],
        **_over_lengths(technique, setting, race, instruments),
        **_decoding(technique, setting, race),
    }


def _over_lengths(technique: Any, setting: Setting, race: Any, instruments: Instruments) -> Numbers:
    lengths = [setting.n_tokens // part for part in (8, 4, 2, 1)]
    raced = [sides(technique, _work(technique, setting, n), seed=setting.seed) for n in lengths]
    seconds = race(*(side.forward for pair in raced for side in pair))
    middle = [float(np.median(samples)) for samples in seconds]
    ours, dense = middle[::2], middle[1::2]
    instruments.note(lengths=lengths, forward_s=ours, dense_forward_s=dense)
    return {
        "time_slope": slope(lengths, ours),
        "crossover_length": crossover(lengths, ours, dense),
    }


def _decoding(technique: Any, setting: Setting, race: Any) -> Numbers:
    """One more token after a quarter of the tokens, and after all of them."""
    if not setting.causal:
        return {"decode_ms": None, "decode_slope": None}
    lengths = [setting.n_tokens // 4, setting.n_tokens]
    shape = shape_of(_work(technique, setting, setting.n_tokens))
    steps = []
    for n in lengths:
        x = torch.randn(1, n, shape.d_model, dtype=DTYPES[setting.dtype])
        steps.append(decoding(technique.build(shape).to(x.dtype), x)[1])
    short, long = race(*steps, rounds=4 * setting.rounds)
    middle = [float(np.median(samples)) for samples in (short, long)]
    return {"decode_ms": milliseconds(long), "decode_slope": slope(lengths, middle)}


def _work(technique: Any, setting: Setting, n: int) -> Work:
    heads, size = setting.n_heads, DTYPES[setting.dtype].itemsize
    work = Work(
        n_heads=heads, n_kv_heads=heads, n_q=n, n_k=n, d_head=setting.d_head,
        causal=setting.causal, itemsize=size,
    )  # fmt: skip
    return work_of(technique, work)
