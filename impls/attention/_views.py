"""The three branches of native sparse attention: what a query sees of the keys, and how.

Places are counted among the kept keys only (`_routing.py`), so padding moves no block. B batch,
H query heads, G key/value heads of each branch, d head width, n_c compressed and n_s selectable
blocks.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from impls.attention import _routing
from impls.attention._scores import attended
from impls.models.hooks import Cache


class BlockSizes(Protocol):
    """What the branches need to know; in keys."""

    compress: int
    stride: int
    block: int
    selected: int  # blocks
    window: int


class Compression(nn.Module):
    """phi: the keys or values of a compressed block, with their places in it, to one."""

    def __init__(self, sizes: BlockSizes, d: int) -> None:
        super().__init__()
        self.length, self.stride = sizes.compress, sizes.stride
        self.position = nn.Parameter(torch.zeros(d, self.length))
        self.mlp = nn.Sequential(nn.Linear(d * self.length, d), nn.GELU(), nn.Linear(d, d))

    def forward(self, x: Tensor) -> Tensor:
        """(B, G, Tk, d) to (B, G, n_c, d), whole blocks only."""
        if x.shape[2] < self.length:
            return x[:, :, :0]
        blocks = x.unfold(2, self.length, self.stride)  # (B, G, n_c, d, l)
        return self.mlp((blocks + self.position).flatten(3))


class ViewCache(Cache):
    """Every token's keys and values for each branch, and the summaries of whole blocks."""

    def __init__(self, max_len: int) -> None:
        super().__init__(max_len)
        self.summaries: tuple[Tensor, Tensor] | None = None  # keys, values: (B, G, n_c, d)

    @property
    def nbytes(self) -> int:
        """Bytes of the keys, values and summaries held."""
        return super().nbytes + sum(x.nbytes for x in self.summaries or ())


class Views(nn.Module):
    """Compressed, selected and windowed attention, the last queries beside the last keys."""

    def __init__(self, sizes: BlockSizes, d: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.compress_k, self.compress_v = Compression(sizes, d), Compression(sizes, d)

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        keep: Tensor | None,
        state: ViewCache | None = None,
    ) -> Tensor:
        """What each branch reads, (3, B, H, Tq, d).

        Args:
            q: queries, scaled, (B, H, Tq, d).
            k: keys of the branches, (B, 3 G, Tk, d).
            v: values of the branches, (B, 3 G, Tk, d).
            keep: (B, Tk) bool, False for padding.
            state: whose summaries to go on from and to renew.
        """
        n_q, n_k, groups = q.shape[2], k.shape[2], k.shape[1] // 3
        place = _routing.places(keep, n_k, q.device)
        seen = _routing.seen(place, n_q, n_k - n_q)[:, None, :, None]
        q = q.unflatten(1, (groups, -1))  # (B, G, H/G, Tq, d)
        (k, k_s, k_w), (v, v_s, v_w) = k.chunk(3, dim=1), v.chunk(3, dim=1)
        if keep is not None:
            k, v = packed(k, place), packed(v, place)
        k_c, v_c = self._summarised(k, v, None if keep is not None else state)
        ends = torch.arange(k_c.shape[2], device=q.device) * self.sizes.stride + self.sizes.compress
        views = []
        for rows, keys in _routing.chunks(n_q, n_k, n_k - n_q):
            some, n, at = q[..., rows, :], seen[:, :, rows], place[:, None, None, keys]
            coarse, p = attended(some, k_c, v_c, (ends <= n)[:, :, None])
            chosen = self._selected(p.detach().sum(2), place[:, keys], n) & (at < n)
            fine, _ = attended(some, k_s[:, :, keys], v_s[:, :, keys], chosen[:, :, None])
            # Without padding, places are indices: no key before the first window need be read.
            first = 0 if keep is not None else n_k - n_q + rows.start + 1 - self.sizes.window
            last = slice(max(0, first), keys.stop)
            near = place[:, None, None, last]
            near = ((near < n) & (near >= n - self.sizes.window))[:, :, None]
            window, _ = attended(some, k_w[:, :, last], v_w[:, :, last], near)
            views.append(torch.stack((coarse, fine, window)))
        return torch.cat(views, dim=4).flatten(2, 3)

    def _summarised(self, k: Tensor, v: Tensor, state: ViewCache | None) -> tuple[Tensor, Tensor]:
        """Summaries of keys and values (B, G, n_c, d), only those computed that a state lacks."""
        known = state.summaries if state and state.summaries else (k[:, :, :0], v[:, :, :0])
        first = known[0].shape[2] * self.sizes.stride
        k_c = torch.cat((known[0], self.compress_k(k[:, :, first:])), dim=2)
        v_c = torch.cat((known[1], self.compress_v(v[:, :, first:])), dim=2)
        if state is not None:
            state.summaries = (k_c, v_c)
        return k_c, v_c

    def _selected(self, p: Tensor, place: Tensor, seen: Tensor) -> Tensor:
        """Which keys the selected blocks hold, (B, G, Tq, Tk) bool, by weights (B, G, Tq, n_c)."""
        sizes, n_s = self.sizes, -(-place.shape[1] // self.sizes.block)
        own = (seen - 1) // sizes.block
        block = torch.arange(n_s, device=p.device)
        forced = (block == 0) | (block >= own - 1)
        choice = _routing.chosen(p @ overlaps(p, n_s, sizes), own, forced, sizes.selected)
        return _routing.of_blocks(choice, place, sizes.block)


def packed(x: Tensor, place: Tensor) -> Tensor:
    """Keys or values (B, G, Tk, d) in the order of their places (B, Tk), padding last."""
    order = place.argsort(dim=-1, stable=True)[:, None, :, None]
    return x.gather(2, order.expand_as(x))


def overlaps(p: Tensor, n_s: int, sizes: BlockSizes) -> Tensor:
    """By how many strides compressed and selectable blocks overlap, (n_c, n_s) like p."""
    begin = torch.arange(p.shape[-1], device=p.device)[:, None]
    length, width = sizes.compress // sizes.stride, sizes.block // sizes.stride
    block = torch.arange(n_s, device=p.device) * width
    shared = (begin + length).minimum(block + width) - begin.maximum(block)
    return shared.clamp(min=0).to(p.dtype)
