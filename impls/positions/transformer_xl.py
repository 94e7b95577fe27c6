"""Transformer-XL: scores see the distance through projected sinusoids and two learned vectors.

    s_ij = ((q_i + u) . k_j + (q_i + v) . W_kR r_{i-j}) / sqrt(d)
    r_n = [sin n theta_0, ..., sin n theta_{D/2-1}, cos n theta_0, ...],  theta_m = base^(-2m/D)

A segment of text also attends over the last M tokens of those before it, whose keys and values are
kept without gradient (`SegmentMemory`): N layers reach N M tokens beyond the segment.

i, j positions; u, v (H, d) of each layer; D model width, d head width, H query heads.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from harness.card import Card
from impls.models.decoder import Decoder, DecodingState
from impls.models.hooks import Cache, Held
from impls.positions._relative import gathered, projected
from impls.positions._rotary import inverse_frequencies
from impls.positions.interface import Frame, LayerShape, PositionEncoding, PositionRecipe

CARD = Card(
    cls="TransformerXL",
    title="Transformer-XL",
    paper="arXiv:1901.02860",
    year=2019,
    summary="Content and position scores of the distance, with a memory of earlier segments.",
    oracle="transformers' XLNet attention; a gather loop; dense attention over the memory's window",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerXL(PositionRecipe):
    """Relative positions of Transformer-XL."""

    base: float = 10_000.0
    shared_biases: bool = False  # one u and v for all layers

    injected_at: ClassVar = ("product", "score")
    depends_on: ClassVar = "relative"

    def __post_init__(self) -> None:
        if self.base <= 1:
            raise ValueError(f"base must be above 1, got {self.base}")

    def build(self, shape: LayerShape) -> "TransformerXLEncoding":
        """An encoding with W_kR, u and v for each layer.

        Raises:
            ValueError: if the model width is odd.
        """
        if shape.d_model % 2:
            raise ValueError(f"sinusoids come in pairs: d_model must be even, got {shape.d_model}")
        return TransformerXLEncoding(shape, self.base, self.shared_biases)


class TransformerXLEncoding(PositionEncoding):
    """One `TransformerXLLayer` for each layer of the model."""

    def __init__(self, shape: LayerShape, base: float, shared_biases: bool) -> None:
        super().__init__()
        n_biases = 1 if shared_biases else shape.n_layers
        self.biases = nn.ModuleList(_Biases(shape) for _ in range(n_biases))
        self.layers = nn.ModuleList(
            TransformerXLLayer(shape, base, self.biases[n % n_biases])
            for n in range(shape.n_layers)
        )

    def at(self, layer: int) -> PositionEncoding:
        """The layer's own projection and biases."""
        return self.layers[layer]


class _Biases(nn.Module):
    """u and v, (H, 1, d): what every query asks of content and of distance."""

    def __init__(self, shape: LayerShape) -> None:
        super().__init__()
        self.u = nn.Parameter(0.02 * torch.randn(shape.n_heads, 1, shape.d_head))
        self.v = nn.Parameter(0.02 * torch.randn(shape.n_heads, 1, shape.d_head))


class TransformerXLLayer(PositionEncoding):
    """The scores of one layer."""

    def __init__(self, shape: LayerShape, base: float, biases: nn.Module) -> None:
        super().__init__()
        self.shape = shape
        self.theta = inverse_frequencies(shape.d_model, base)
        self.r_proj = nn.Linear(shape.d_model, shape.n_heads * shape.d_head, bias=False)
        nn.init.normal_(self.r_proj.weight, std=0.02)
        self._biases = (biases,)  # a tuple hides it: registered once, where layers may share it

    def queries(self, q: Tensor, frame: Frame) -> Tensor:
        """Queries plus u: their product with the keys holds both terms of content."""
        return q + self._biases[0].u.to(q.dtype)

    def score_bias(self, q: Tensor, k: Tensor, frame: Frame) -> Tensor:
        """(q_i + v) . W_kR r_{i-j}, scaled, (B, H, Tq, Tk)."""
        q = self.scale(q.shape[-1]) * (q + self._biases[0].v.to(q.dtype))
        n_q, n_k = frame.q_pos.shape[1], frame.k_pos.shape[1]
        if _consecutive(frame.q_pos) and _consecutive(frame.k_pos):
            farthest = frame.q_pos[0, -1] - frame.k_pos[0, 0]
            distances = farthest - torch.arange(n_q + n_k, device=farthest.device)
            return shifted(q @ self._rows(distances, q.dtype).mT)
        distances, index = frame.distance.unique(return_inverse=True)
        return gathered(q @ self._rows(distances, q.dtype).mT, index)

    def _rows(self, distances: Tensor, dtype: torch.dtype) -> Tensor:
        """W_kR r_n of distances (n,), (H, n, d)."""
        angles = distances[:, None].to(torch.float64) * self.theta.to(distances.device)
        r = torch.cat((angles.sin(), angles.cos()), dim=-1).to(self.r_proj.weight.dtype)
        return projected(r, self.r_proj, self.shape.n_heads).to(dtype)


def shifted(scores: Tensor) -> Tensor:
    """Scores by distance (..., Tq, Tq + Tk), farthest first, as scores by key (..., Tq, Tk).

    Row i starts at column Tq - 1 - i: reading rows one entry shorter shifts each by one more. The
    last column is never read.
    """
    n_q, n = scores.shape[-2:]
    rows = scores.flatten(-2)[..., n_q - 1 : -1].unflatten(-1, (n_q, n - 1))
    return rows[..., : n - n_q]


def _consecutive(pos: Tensor) -> bool:
    return pos.shape[0] == 1 and bool((pos.diff() == 1).all())


class SegmentMemory(Cache):
    """Keys and values of the last `memory` tokens before a segment, without gradient.

    The paper keeps hidden states and projects them anew: the same but for the gradient that the
    projections of keys and values then get from the memory.
    """

    def __init__(self, memory: int) -> None:
        if memory < 1:
            raise ValueError(f"memory must be at least 1 token, got {memory}")
        super().__init__(memory)

    def append(self, k: Tensor, v: Tensor, pos: Tensor, keep: Tensor | None) -> Held:
        """The memory and a segment of T tokens; then the last tokens of both are the memory."""
        keep = k.new_ones((k.shape[0], k.shape[2]), dtype=torch.bool) if keep is None else keep
        held: tuple[Tensor, ...] = (k, v, pos[..., None], keep[..., None])  # (..., T, width) each
        if self._held:
            pairs = zip(self._held, held, strict=True)
            held = tuple(torch.cat((old, new), dim=-2) for old, new in pairs)
        self._held = tuple(x[..., -self.max_len :, :].detach().clone() for x in held)
        self.length += k.shape[2]
        k, v, k_pos, keep = (*held[:2], held[2].squeeze(-1), held[3].squeeze(-1))
        return Held(k, v, pos, k_pos, None if keep.all() else keep)

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values in memory."""
        return sum(x.nbytes for x in self._held[:2])


def segments(model: Decoder, ids: Tensor, *, length: int, memory: int) -> Iterator[Tensor]:
    """Logits (B, up to length, V) of one segment of ids (B, T) after the other.

    Each reads the memory of those before; a loss on it can be taken backward at once, since no
    gradient goes from a segment to those before it. With a length of 1, every token is predicted
    from the `memory` tokens before it at the cost of one.
    """
    state = DecodingState([SegmentMemory(memory) for _ in model.blocks])
    for segment in ids.split(length, dim=1):
        yield model(segment, state=state)
