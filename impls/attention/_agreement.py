"""A technique beside a library that reads the same pairs, on random calls."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from impls.attention._masked import masked_attention

if TYPE_CHECKING:
    from impls.attention.interface import AttentionKernel, AttentionPeer

LENGTHS = (1, 15, 64, 77, 130, 257)


def agreement(
    technique: "AttentionKernel", peer: "AttentionPeer", *, seed: int, size: int
) -> dict[str, float]:
    """How many output rows of random float32 calls the technique and the peer agree on.

    Both may err, against float64, twice as much as the naive computation does at most on these
    calls; a row agrees if no component differs by more than the two errors together.

    Args:
        technique: What is compared.
        peer: The library that adopts what the technique reads.
        seed: Chooses lengths, heads, padding and values.
        size: Output rows of all calls together, at least.

    Returns:
        "compared" rows, "agreeing" of them, and "max_error", the largest difference.
    """
    rng = torch.Generator().manual_seed(seed)
    adopted = peer.adopt(technique)
    found, naive_error = torch.empty(0), 0.0
    while len(found) < size:
        q, k, v, options = _call(technique, rng)
        ours = technique.attend(q, k, v, **options)
        differences = (ours - adopted.attend(q, k, v, **options)).abs().amax(-1)
        found = torch.cat((found, differences.flatten()))
        naive_error = max(naive_error, _naive_error(technique, q, k, v, **options))
    return {
        "compared": float(len(found)),
        "agreeing": float((found <= 4 * naive_error).sum()),
        "max_error": float(found.max()),
    }


def _call(
    technique: "AttentionKernel", rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    """A random call within the technique's capabilities."""
    able = technique.capabilities
    n_k = LENGTHS[_below(len(LENGTHS), rng)]
    n_q = min(n_k, LENGTHS[_below(len(LENGTHS), rng)]) if able.cross else n_k
    batch, H = 1 + _below(3, rng), 4
    G = technique.kv_heads(H, (4, 2, 1)[_below(3, rng)] if able.gqa else H)
    causal = able.causal and not (able.bidirectional and _below(2, rng))
    keep = torch.rand(batch, n_k, generator=rng) < 0.9 if able.padding else None
    q = torch.randn(batch, H, n_q, 32, generator=rng)
    k, v = (torch.randn(batch, G, n_k, 32, generator=rng) for _ in "kv")
    return q, k, v, {"causal": causal, "keep": keep}


def _naive_error(
    technique: "AttentionKernel", q: Tensor, k: Tensor, v: Tensor, *, causal: bool, keep: Any
) -> float:
    """Largest error of masked softmax attention in float32."""
    n_q, n_k = q.shape[2], k.shape[2]
    mask = technique.mask(n_q, n_k, causal=causal, offset=n_k - n_q, n_heads=q.shape[1])
    mask = mask if keep is None else mask & keep[:, None, None, :]
    exact = masked_attention(q.double(), k.double(), v.double(), mask)
    return float((masked_attention(q, k, v, mask) - exact).abs().max())


def _below(n: int, rng: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=rng))
