"""Scores looked up by distance: a product with a small table, then one entry for each key.

B batch, H query heads, G key/value heads, Tq queries, Tk keys, n rows of the table, d head width.
"""

from torch import Tensor, nn


def gathered(scores: Tensor, index: Tensor) -> Tensor:
    """Entry index[b, i, j] of row i for every head: (B, H, Tq, Tk).

    Args:
        scores: (B, H, Tq, n).
        index: (B or 1, Tq, Tk) int64 in [0, n).
    """
    return scores.gather(-1, index[:, None].expand(*scores.shape[:2], *index.shape[1:]))


def for_query_heads(k: Tensor, n_heads: int) -> Tensor:
    """Keys (B, G, Tk, d) repeated for the query heads they serve, (B, H, Tk, d)."""
    return k.repeat_interleave(n_heads // k.shape[1], dim=1)


def projected(rows: Tensor, projection: nn.Linear, n_heads: int) -> Tensor:
    """Rows (..., n, D) of a table as heads see them, (..., H, n, d)."""
    return projection(rows).unflatten(-1, (n_heads, -1)).transpose(-3, -2)
