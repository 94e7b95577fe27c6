"""Biases that are functions of a head and two positions, and those of the distance alone.

One formula serves both forms: a matrix for kernels that take a bias, and one score at a time for
FlexAttention. Biases are computed in float32, or float64 for float64 queries, whatever the model's
dtype: in bfloat16 the distance 257 is no number. B batch, H query heads, Tq queries, Tk keys.
"""

import torch
from torch import Tensor

from impls.positions.interface import Frame, LayerShape, PositionEncoding, ScoreMod


class PointwiseBias(PositionEncoding):
    """A bias with a formula, which a subclass gives."""

    def __init__(self, shape: LayerShape) -> None:
        super().__init__()
        self.n_heads = shape.n_heads

    def formula(self, h: Tensor, q_pos: Tensor, k_pos: Tensor, dtype: torch.dtype) -> Tensor:
        """The bias at heads and positions, int64 tensors that broadcast, in `dtype`."""
        raise NotImplementedError

    def score_bias(self, q: Tensor, k: Tensor, frame: Frame) -> Tensor:
        """The bias, (B or 1, H, Tq, Tk) float32 or float64."""
        q_pos, k_pos = frame.q_pos[:, None, :, None], frame.k_pos[:, None, None, :]
        return self.formula(self._heads(q)[:, None, None], q_pos, k_pos, at_least_float32(q))

    def score_mod(self) -> ScoreMod:
        """The formula at one score."""

        def add(score: Tensor, b: Tensor, h: Tensor, q_pos: Tensor, k_pos: Tensor) -> Tensor:
            h, q_pos, k_pos = (torch.as_tensor(n) for n in (h, q_pos, k_pos))
            return score + self.formula(h, q_pos, k_pos, at_least_float32(score))

        return add

    def _heads(self, q: Tensor) -> Tensor:
        return torch.arange(self.n_heads, device=q.device)


class DistanceBias(PointwiseBias):
    """A bias of q_pos - k_pos; computed once for each distance where positions are consecutive."""

    def of_distance(self, h: Tensor, distance: Tensor, dtype: torch.dtype) -> Tensor:
        """The bias at heads and distances, int64 tensors that broadcast, in `dtype`."""
        raise NotImplementedError

    def formula(self, h: Tensor, q_pos: Tensor, k_pos: Tensor, dtype: torch.dtype) -> Tensor:
        """The bias of the distance."""
        return self.of_distance(h, q_pos - k_pos, dtype)

    def score_bias(self, q: Tensor, k: Tensor, frame: Frame) -> Tensor:
        """The bias, (B or 1, H, Tq, Tk) float32 or float64."""
        if not (consecutive(frame.q_pos) and consecutive(frame.k_pos)):
            return super().score_bias(q, k, frame)
        n_q, n_k = frame.q_pos.shape[1], frame.k_pos.shape[1]
        first = frame.q_pos[0, 0] - frame.k_pos[0, 0]
        distances = first - torch.arange(-n_q, n_k, device=q.device)
        by_distance = self.of_distance(self._heads(q)[:, None], distances, at_least_float32(q))
        return toeplitz(by_distance, n_q)[None]


def at_least_float32(x: Tensor) -> torch.dtype:
    """The dtype of a bias for scores of x."""
    return torch.promote_types(x.dtype, torch.float32)


def consecutive(pos: Tensor) -> bool:
    """Whether positions (B or 1, T) are one row of successive numbers."""
    return pos.shape[0] == 1 and pos.shape[1] > 0 and bool((pos.diff() == 1).all())


def toeplitz(by_offset: Tensor, n_q: int) -> Tensor:
    """The matrix (H, Tq, Tk) whose entry i, j is the value at offset j - i.

    Args:
        by_offset: values at offsets -Tq to Tk - 1, (H, Tq + Tk); the first is never read.
        n_q: Tq.
    """
    n = by_offset.shape[-1]
    cycle = by_offset.roll(-n_q, dims=-1)  # offset 0 first, negative offsets from the end
    rows = cycle[:, None].expand(-1, n_q, -1).flatten(1)
    # Read in rows of n - 1, each starts one entry further back in its cycle.
    return rows[:, : n_q * (n - 1)].unflatten(1, (n_q, n - 1))[..., : n - n_q]
