"""Random blocks, the same for a block of queries however long the sequence is."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@lru_cache(maxsize=64)
def random_blocks(  # noqa: PLR0917 - what a draw depends on, cached by it
    seed: int, n_heads: int, n_rows: int, n: int, first: int, gap: int, causal: bool
) -> Tensor:
    """Key blocks drawn for each head and query block, (H, n_rows, n) int64; -1 where too few.

    Each row has a generator of its own, so a row does not depend on how many there are.

    Args:
        seed: of the draws.
        n_heads: H.
        n_rows: blocks of the sequence.
        n: blocks to draw for a row, without repetition.
        first: blocks before it are never drawn.
        gap: blocks nearer than this to the row's own are never drawn.
        causal: draw earlier blocks only.
    """
    table = torch.full((n_heads, n_rows, n), -1)
    for head in range(n_heads):
        for row in range(n_rows):
            before = range(first, row - gap + 1)
            after = range(max(first, row + gap), 0 if causal else n_rows)
            free = np.array([*before, *after])
            count = min(n, len(free))
            if count:
                rng = np.random.default_rng((seed, head, row))
                table[head, row, :count] = torch.from_numpy(rng.permutation(free)[:count])
    return table
