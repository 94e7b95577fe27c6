"""torch's FlexAttention: a mask and a score modification compiled into one kernel."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from harness.card import Card
from impls.attention._layout import Everything, Rule
from impls.attention._sparse import SparseAttention
from impls.attention.interface import AttentionKernel, AttentionPeer, Capabilities

CARD = Card(
    cls="FlexAttentionPeer",
    title="torch FlexAttention",
    paper="arXiv:2412.05496",
    year=2024,
    summary="Block-sparse attention compiled from a mask function; forward only on CPUs.",
    packages=("torch",),
    oracle="attention/full",
    peer_of=(
        "attention/sliding_window",
        "attention/strided",
        "attention/longformer",
        "attention/bigbird",
        "attention/block_sparse",
        "attention/streaming_sinks",
    ),
)


@dataclass(frozen=True)
class LastKeys:
    """The rule of a causal sliding window."""

    window: int
    n_heads: int = 1

    def sees(self, i: Tensor, j: Tensor, head: Any) -> Tensor:
        """Whether j is one of the last keys at i."""
        return i - j < self.window

    def spans(self, first: int, last: int) -> Sequence[tuple[int, int]]:
        """From the first window on."""
        return [(first - self.window + 1, 1 << 62)]


@dataclass(frozen=True, kw_only=True, slots=True)
class FlexAttentionPeer(AttentionPeer):
    """Dense or sliding-window attention, compiled for each shape (half a minute on a CPU)."""

    window: int | None = None  # None: dense

    capabilities: ClassVar = Capabilities(bias=True, backward=False)

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ValueError(f"window must be at least 1, got {self.window}")

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        causal: bool = True,
        offset: int | None = None,
        keep: Tensor | None = None,
        bias: Tensor | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Output (B, H, Tq, dv); on a CPU it has no gradient."""
        rule = Everything() if self.window is None else LastKeys(self.window)
        options = _options(rule, q, k, causal, offset, keep, bias)
        return _compiled()(q, k, v, scale=scale, **options)

    def adopt(self, technique: AttentionKernel, *, fast: bool = False) -> "FlexRule":
        """FlexAttention over the pairs that the technique reads, compiled if it is to be fast."""
        return FlexRule(technique=technique, compiled=fast)

    def backend(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool = True) -> str:
        """The code that torch.compile writes for this device."""
        return "inductor triton" if q.is_cuda else "inductor c++"


@dataclass(frozen=True, kw_only=True, slots=True)
class FlexRule(AttentionKernel):
    """FlexAttention under a technique's rule; not compiled it is right for any shape, and slow."""

    technique: AttentionKernel
    compiled: bool = False

    capabilities: ClassVar = Capabilities(bias=True, backward=False)

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        causal: bool = True,
        offset: int | None = None,
        keep: Tensor | None = None,
        bias: Tensor | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Output (B, H, Tq, dv)."""
        rule: Rule = Everything()
        if isinstance(self.technique, SparseAttention):
            rule = self.technique.rule(causal=causal, n_heads=q.shape[1], n_k=k.shape[2])
        options = _options(rule, q, k, causal, offset, keep, bias)
        if self.compiled:
            return _compiled()(q, k, v, scale=scale, **options)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
            return flex_attention(q, k, v, scale=scale, **options)


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=False)


def _options(  # noqa: PLR0917 - the call's own arguments, passed on
    rule: Rule,
    q: Tensor,
    k: Tensor,
    causal: bool,
    offset: int | None,
    keep: Tensor | None,
    bias: Tensor | None,
) -> dict[str, Any]:
    """A call in FlexAttention's words."""
    offset = k.shape[2] - q.shape[2] if offset is None else offset
    build = _block_mask if keep is None else _block_mask.__wrapped__  # padding differs every time
    mask = build(rule, q.shape[1], q.shape[2], k.shape[2], causal, offset, str(q.device), keep)
    score_mod = None
    if bias is not None:
        bias = bias.expand(q.shape[0], -1, -1, -1)

        def score_mod(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return score + bias[b, h, i, j]

    return {"block_mask": mask, "score_mod": score_mod, "enable_gqa": q.shape[1] != k.shape[1]}


@lru_cache(maxsize=16)
def _block_mask(  # noqa: PLR0917 - what a mask depends on, cached by it
    rule: Rule,
    n_heads: int,
    n_q: int,
    n_k: int,
    causal: bool,
    offset: int,
    device: str,
    keep: Tensor | None,
) -> BlockMask:
    def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        mask = rule.sees(i + offset, j, h)
        mask = mask & (j <= i + offset) if causal else mask
        return mask if keep is None else mask & keep[b, j]

    batch = None if keep is None else keep.shape[0]
    heads = None if rule.n_heads == 1 else n_heads
    return create_block_mask(seen, batch, heads, n_q, n_k, device=device)
