"""Native sparse attention: a coarse view of all, a fine view of what looks best, and a window.

    compressed  k~_c = phi(k_{cs+1 .. cs+l});   p = softmax(s q . k~),  o_cmp = p v~
    selected    score of block b = p summed over the compressed blocks that overlap it and over the
                query heads of a group; the first block, the last two and the best others, n in all
    window      the last w keys
    y = g_cmp o_cmp + g_slc o_slc + g_win o_win,   g = sigmoid(W_g x)

l compressed block, s its stride, phi a learned map with positions inside the block; each branch
has keys and values of its own. The branches themselves: `_views.py`.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from harness.card import Card
from impls.attention._encoded import refuse_bias
from impls.attention._views import ViewCache, Views
from impls.attention.interface import (
    AttentionBlock,
    AttentionLayer,
    Capabilities,
    LayerShape,
    PositionEncoding,
    Work,
)
from impls.models.hooks import Frame, Held

CARD = Card(
    cls="NSA",
    title="Native sparse attention",
    paper="arXiv:2502.11089",
    year=2025,
    summary="Learned block summaries, the blocks they single out, and a window, mixed by gates.",
    oracle="a loop over queries; fla.ops.nsa.naive for the selected branch",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class NSA(AttentionBlock):
    """Compression, selection and a sliding window over keys of their own."""

    compress: int = 32  # keys in a compressed block, l
    stride: int = 16  # keys between the beginnings of two
    block: int = 64  # keys in a selected block
    selected: int = 16  # blocks read: the first, the last two, and the best others
    window: int = 512  # last keys read

    capabilities: ClassVar = Capabilities(bidirectional=False, cross=False)

    def __post_init__(self) -> None:
        if self.stride < 1 or self.compress % self.stride or self.block % self.stride:
            raise ValueError(
                f"compress {self.compress} and block {self.block} must be multiples of "
                f"stride {self.stride}, which must be at least 1"
            )
        for name, least in (("compress", 1), ("block", 1), ("selected", 3), ("window", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def build(self, shape: LayerShape, layer: int = 0) -> AttentionLayer:
        """The layer, with three sets of keys and values and three gates per head."""
        return SparseLayer(shape, self)

    def flops(self, work: Work) -> int:
        """Projections, phi, and the two products over the pairs of the three branches."""
        heads, d = work.n_heads, work.d_head
        width, kv_width = heads * d, work.n_kv_heads * d
        projections = 2 * work.n_q * width * (2 * width + 6 * kv_width + 3 * heads)
        summaries = 4 * (work.n_q // self.stride) * kv_width * d * (self.compress + 1)
        seen = range(max(work.n_k - work.n_q, 0) + 1, work.n_k + 1)
        pairs = sum(self._compressed(n) + self._selected(n) + min(n, self.window) for n in seen)
        return work.batch * (projections + summaries + 4 * heads * d * pairs)

    def cache_bytes_per_token(self, shape: LayerShape, itemsize: int = 4) -> float:
        """A key and a value for every key/value head and branch, and their summaries."""
        return (6 + 2 / self.stride) * shape.n_kv_heads * shape.d_head * itemsize

    def _compressed(self, n: int) -> int:
        """Whole compressed blocks among n keys."""
        return max(0, (n - self.compress) // self.stride + 1)

    def _selected(self, n: int) -> int:
        """Keys in the selected blocks of a query that sees n."""
        own = (n - 1) % self.block + 1
        return min(n, own + (self.selected - 1) * self.block)


class SparseLayer(AttentionLayer):
    """x to y (B, T, D)."""

    def __init__(self, shape: LayerShape, recipe: NSA) -> None:
        super().__init__()
        self.shape, self.recipe = shape, recipe
        width, kv_width = shape.n_heads * shape.d_head, 3 * shape.n_kv_heads * shape.d_head
        self.q_proj = nn.Linear(shape.d_model, width, bias=False)
        self.k_proj = nn.Linear(shape.d_model, kv_width, bias=False)
        self.v_proj = nn.Linear(shape.d_model, kv_width, bias=False)
        self.gate_proj = nn.Linear(shape.d_model, 3 * shape.n_heads)
        self.views = Views(recipe, shape.d_head)
        self.o_proj = nn.Linear(width, shape.d_model, bias=False)

    def init_state(self, batch: int, max_len: int) -> ViewCache:
        """Room for the keys and values of every token, for each branch."""
        return ViewCache(max_len)

    def forward(
        self,
        x: Tensor,
        *,
        pos: Tensor,
        encoding: PositionEncoding,
        keep: Tensor | None = None,
        state: ViewCache | None = None,
        causal: bool = True,
    ) -> Tensor:
        """Attend over x (B, T, D) and what the cache holds.

        Raises:
            ValueError: without causality, or if the encoding biases scores or values.
        """
        if not causal:
            raise ValueError("NSA is causal: choose another attention for causal=False")
        refuse_bias(encoding, "NSA")
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (p(x).unflatten(-1, (-1, self.shape.d_head)).transpose(1, 2) for p in projections)
        if encoding.static_keys:
            k = encoding.keys(k, Frame(pos, pos))
        held = Held(k, v, pos, pos, keep) if state is None else state.append(k, v, pos, keep)
        frame = Frame(held.q_pos, held.k_pos, keep=held.keep)
        k = held.k if encoding.static_keys else encoding.keys(held.k, frame)
        q = encoding.queries(q, frame) * encoding.scale(self.shape.d_head)
        gates = self.gate_proj(x).sigmoid().unflatten(-1, (3, -1, 1)).permute(2, 0, 3, 1, 4)
        lasting = state if encoding.static_keys else None  # other keys change what summarises them
        y = (gates * self.views(q, k, held.v, held.keep, lasting)).sum(0)
        return self.o_proj(y.transpose(1, 2).flatten(2))
