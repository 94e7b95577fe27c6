"""One attention technique as works to time: a forward pass, a backward pass, one decoding step.

A kernel runs on heads q, k, v, a block (one that owns its projections) on x; the reference beside
it does the same work densely: torch's fused attention on the same q, k, v, or the usual layer
around it on the same x. B batch, H query heads, G key/value heads, N tokens, d head width.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness import catalogue
from impls.attention.interface import (
    AttentionBlock,
    AttentionKernel,
    AttentionLayer,
    LayerShape,
    Work,
)
from impls.models.attention import Dense, SelfAttention
from impls.models.hooks import PositionEncoding

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Forward = Callable[[], Tensor]


@dataclass(frozen=True)
class Side:
    """A technique, or what it is compared with, at one length; inputs are made by then."""

    forward: Forward  # keeps no graph
    recorded: Forward  # keeps the graph that `inputs` get gradients from
    inputs: tuple[Tensor, ...]

    def backward(self) -> Callable[[], object]:
        """A work that runs the backward pass alone, of a graph recorded now."""
        out = self.recorded()
        ones = torch.ones_like(out)
        return lambda: torch.autograd.grad(out, self.inputs, ones, retain_graph=True)


def sides(
    technique: AttentionKernel | AttentionBlock,
    work: Work,
    *others: AttentionKernel,
    seed: int,
) -> list[Side]:
    """The technique, dense attention, and further kernels, on the same inputs."""
    dtype = next(d for d in DTYPES.values() if d.itemsize == work.itemsize)
    shape, generator = shape_of(work), torch.Generator().manual_seed(seed)
    if isinstance(technique, AttentionBlock):
        x = torch.randn(work.batch, work.n_q, shape.d_model, generator=generator).to(dtype)
        layers = (technique.build(shape), SelfAttention(shape))
        return [_layer_side(layer.to(dtype), x, work) for layer in layers]
    q, k, v = (
        torch.randn(work.batch, heads, n, work.d_head, generator=generator).to(dtype)
        for heads, n in ((work.n_heads, work.n_q), *((work.n_kv_heads, work.n_k),) * 2)
    )
    kernels: list[AttentionKernel | Dense] = [technique, Dense(), *others]
    return [_kernel_side(kernel, q, k, v, work) for kernel in kernels]


def _kernel_side(
    kernel: AttentionKernel | Dense, q: Tensor, k: Tensor, v: Tensor, work: Work
) -> Side:
    inputs = tuple(t.clone().requires_grad_() for t in (q, k, v))

    def forward() -> Tensor:
        with torch.no_grad():
            return kernel.attend(q, k, v, causal=work.causal)

    return Side(forward, lambda: kernel.attend(*inputs, causal=work.causal), inputs)


def _layer_side(layer: AttentionLayer, x: Tensor, work: Work) -> Side:
    inputs = (x.clone().requires_grad_(),)
    where: dict[str, Any] = {
        "pos": torch.arange(x.shape[1])[None],
        "encoding": PositionEncoding(),
        "causal": work.causal,
    }

    def forward() -> Tensor:
        with torch.no_grad():
            out: Tensor = layer(x, **where)
            return out

    return Side(forward, lambda: layer(inputs[0], **where), inputs)


def decoding(layer: Any, x: Tensor) -> tuple[Any, Callable[[], object]]:
    """A state that has taken in the tokens x (B, N, D), and a work that adds one more."""
    state = layer.init_state(len(x), 2 * x.shape[1] + 64)
    seen = [0]

    def step(n: int = 1) -> None:
        pos = torch.arange(seen[0], seen[0] + n)[None]
        with torch.no_grad():
            layer(x[:, :n], pos=pos, encoding=PositionEncoding(), state=state)
        seen[0] += n

    step(x.shape[1])
    return state, step


def shape_of(work: Work) -> LayerShape:
    """A layer for this work, as wide as its heads together."""
    return LayerShape(
        d_model=work.n_heads * work.d_head, n_heads=work.n_heads, n_kv_heads=work.n_heads,
        d_head=work.d_head, n_layers=1, max_len=work.n_k,
    )  # fmt: skip


def work_of(technique: AttentionKernel | AttentionBlock, work: Work) -> Work:
    """The work with as many key/value heads as the technique has."""
    if isinstance(technique, AttentionBlock):
        return work
    return replace(work, n_kv_heads=technique.kv_heads(work.n_heads, work.n_kv_heads))


def adopted(peer: str, technique: AttentionKernel | AttentionBlock) -> list[AttentionKernel]:
    """A library's attention over the pairs that the technique reads; none for an empty name.

    Raises:
        ValueError: if the library does not repeat this technique.
    """
    if not peer:
        return []
    name = catalogue.name_of(technique)
    if peer not in catalogue.peers_of(name):
        known = ", ".join(catalogue.peers_of(name)) or "none"
        raise ValueError(f"{peer} does not repeat {name}; peers that do: {known}")
    return [catalogue.load(peer)().adopt(technique, fast=True)]
