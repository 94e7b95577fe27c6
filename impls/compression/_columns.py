"""The column loop of GPTQ and SparseGPT: columns settle in turn, later ones make up for the error.

    for i:  e = (w_i - w^_i) / U_ii,      w_j <- w_j - e U_ij for j > i,      H^-1 = U^T U

w^_i is what column i becomes, decided from the column as updated by then (arXiv:2210.17323). Inside
a block errors are spread one by one, beyond it by one product when the block is done, which changes
nothing but the time. All rows go together; R rows, C columns.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

# What a column (R,) becomes, by its place in its group.
Settle = Callable[[int, Tensor], Tensor]
# Called with the first column of a group and the group (R, n) as updated by then.
Enter = Callable[[int, Tensor], Settle]


def settled(weight: Tensor, factor: Tensor, enter: Enter, *, step: int, block: int = 128) -> Tensor:
    """The weight after every column has settled, (R, C) in the weight's dtype.

    Args:
        weight: (R, C); left as it is.
        factor: the upper triangular U, (C, C).
        enter: decides about a group as it is reached; it sees a view, not to be written to.
        step: columns of a group; the last one may be shorter.
        block: columns whose errors wait for one product.
    """
    # One column is one stretch of memory.
    columns = weight.T.clone(memory_format=torch.contiguous_format)
    factor = factor.to(weight.dtype)
    errors = torch.empty_like(columns[:block])
    settle: Settle
    for start, stop in _blocks(len(columns), step, block):
        for i in range(start, stop):
            if i % step == 0:
                settle = enter(i, columns[i : i + step].T)
            becomes = settle(i % step, columns[i])
            error = torch.sub(columns[i], becomes, out=errors[i - start]).div_(factor[i, i])
            columns[i] = becomes
            columns[i + 1 : stop].addr_(factor[i, i + 1 : stop], error, alpha=-1)
        columns[stop:].addmm_(factor[start:stop, stop:].T, errors[: stop - start], alpha=-1)
    return columns.T.contiguous()


def _blocks(n_columns: int, step: int, block: int) -> Iterator[tuple[int, int]]:
    """Runs of at most `block` columns; a group begins with a block or lies inside one."""
    outer = step * max(1, block // step)
    for first in range(0, n_columns, outer):
        last = min(first + outer, n_columns)
        for start in range(first, last, block):
            yield start, min(start + block, last)
