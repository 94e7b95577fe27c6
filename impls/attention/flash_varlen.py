"""FlashAttention over sequences of unequal length: padding is never read, not read and masked.

    y = [flash(q[c_n : c_{n+1}], k[c_n : c_{n+1}], v[c_n : c_{n+1}]) for n]

c are `cu_seqlens`, where each of the packed sequences begins and the last one ends.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from harness.card import Card
from impls.attention import _flash
from impls.attention.interface import AttentionKernel, Capabilities

CARD = Card(
    cls="FlashAttentionVarlen",
    title="FlashAttention, packed",
    paper="arXiv:2307.08691",
    year=2023,
    summary="FlashAttention over packed sequences of unequal length, without work on padding.",
    oracle="every sequence alone through attention/full gives the same",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FlashAttentionVarlen(AttentionKernel):
    """Tiled exact attention within the bounds of each sequence; `engine` as in FlashAttention."""

    engine: _flash.Engine = "auto"

    capabilities: ClassVar = Capabilities(bias=True, dense=True)

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
        """Output (B, H, Tq, dv); keys outside the first and last kept one of a row are not read.

        Where those are is asked of the device once a call. With a bias they are masked.
        """
        offset = k.shape[2] - q.shape[2] if offset is None else offset
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        if keep is None or bias is not None:
            return _flash.attend(
                self.engine, q, k, v,
                causal=causal, offset=offset, scale=scale, keep=keep, bias=bias,
            )  # fmt: skip
        spans = kept_spans(keep)
        holes = any(stop - first > kept for first, stop, kept in spans)
        bounds = [(0, q.shape[2], first, stop, offset) for first, stop, _ in spans]
        return _flash.attend_sequences(
            self.engine, q, k, v, bounds,
            causal=causal, scale=scale, keep=keep if holes else None,
        )  # fmt: skip

    def attend_packed(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens: Tensor,
        *,
        causal: bool = True,
        scale: float | None = None,
    ) -> Tensor:
        """Output (H, T, dv) of sequences that lie one after the other, each seeing itself alone.

        Args:
            q: queries, (H, T, d).
            k: keys, (G, T, d).
            v: values, (G, T, dv).
            cu_seqlens: (n + 1,) integers from 0 to T, not falling; sequence n is
                cu_seqlens[n]:cu_seqlens[n + 1]. On a GPU, reading them waits for the device.
            causal: whether a query sees only keys at or before its own place.
            scale: factor of the scores; None: d ** -0.5.

        Raises:
            ValueError: if `cu_seqlens` does not start at 0, falls, or does not end at T.
        """
        ends = cu_seqlens.tolist()
        if len(ends) < 2 or ends != sorted(ends) or (ends[0], ends[-1]) != (0, q.shape[1]):
            raise ValueError(f"cu_seqlens must rise from 0 to T = {q.shape[1]}, got {ends}")
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        bounds = [(start, stop, start, stop, 0) for start, stop in pairwise(ends)]
        packed = (x[None] for x in (q, k, v))
        return _flash.attend_sequences(self.engine, *packed, bounds, causal=causal, scale=scale)[0]


def kept_spans(keep: Tensor) -> list[tuple[int, int, int]]:
    """First kept key, last + 1, and how many are kept, of each row of (B, T) bool."""
    first = keep.int().argmax(1)
    stop = keep.shape[1] - keep.flip(1).int().argmax(1)
    kept = keep.sum(1)
    return [
        (a, b, n) if n else (0, 0, 0)
        for a, b, n in zip(first.tolist(), stop.tolist(), kept.tolist(), strict=True)
    ]
