"""Distances put into buckets: exact while small, logarithmic beyond; of T5 and TUPE-R.

    bucket(n) = n,                                                    n < E
                E + floor((N - E) log(n / E) / log(max_distance / E)),  n >= E, at most N - 1

n distance back, N buckets of one direction, E = N / 2 of them exact.
"""

import math

import torch
from torch import Tensor


def bucket(
    distance: Tensor, *, n_buckets: int = 32, max_distance: int = 128, bidirectional: bool
) -> Tensor:
    """The bucket of each distance, same shape, int64 in [0, n_buckets).

    Args:
        distance: how far back the key stands, q_pos - k_pos (`Frame.distance`), any shape, int64.
        n_buckets: of both directions together.
        max_distance: from here on all distances share the last bucket.
        bidirectional: whether later keys have the upper half of the buckets to themselves; if not,
            they share bucket 0 with the query's own position.
    """
    if bidirectional:
        n_buckets //= 2
        first = n_buckets * (distance < 0)
        distance = distance.abs()
    else:
        first = torch.zeros_like(distance)
        distance = distance.clamp(min=0)
    exact = n_buckets // 2
    growth = torch.log(distance.clamp(min=exact).float() / exact) / math.log(max_distance / exact)
    far = (exact + (growth * (n_buckets - exact)).long()).clamp(max=n_buckets - 1)
    return first + torch.where(distance < exact, distance, far)
