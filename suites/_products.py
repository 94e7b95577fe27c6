"""Products of rows x (M, C) and a weight (R, C): a layer's, and torch's with 4, 8 and 16 bits.

A work is some products one after another, like those of a model's layers, each with a copy of the
weight that has left the caches where MOST_COPIES exceed them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice

import torch
from torch import Tensor
from torch.nn.functional import linear

CACHES = 64 << 20  # bytes that copies of a weight fill: twice a large last-level cache
MOST_COPIES = 8
CALLS = 8  # products in a work
GROUP = 64  # columns with one scale and one zero in torch's int4


@dataclass(frozen=True)
class Product:
    """A product with one copy of a weight."""

    of: Callable[[Tensor], Tensor]
    nbytes: int  # of the weight, scales included


Make = Callable[[], Product]  # a product with a copy of its own


def torch_int4(weight: Tensor) -> Product:
    """Torch's for 4 bits: groups of 64 columns, nearest codes, zeros in the middle of the range."""
    groups = weight.float().view(len(weight), -1, GROUP)
    scales = groups.abs().amax(-1, keepdim=True).clamp(min=1e-9) / 7
    codes = ((groups / scales).round() + 8).clamp(0, 15).flatten(1).int()
    packed = torch._convert_weight_to_int4pack_for_cpu(codes, 1)
    scales = scales.squeeze(-1).T
    pairs = torch.stack((scales, torch.zeros_like(scales)), -1).to(torch.bfloat16).contiguous()
    return Product(
        lambda x: torch._weight_int4pack_mm_for_cpu(x, packed, GROUP, pairs),
        packed.nbytes + pairs.nbytes,
    )


def torch_int8(weight: Tensor) -> Product:
    """Torch's for 8 bits: one scale a row, nearest codes."""
    scales = weight.float().abs().amax(1).clamp(min=1e-9) / 127
    codes, narrow = (weight / scales[:, None]).round().to(torch.int8), scales.to(torch.bfloat16)
    return Product(
        lambda x: torch._weight_int8pack_mm(x, codes, narrow), codes.nbytes + narrow.nbytes
    )


def torch_bf16(weight: Tensor) -> Product:
    """Torch's for bfloat16."""
    narrow = weight.to(torch.bfloat16, copy=True)
    return Product(lambda x: linear(x, narrow), narrow.nbytes)


def work(make: Make, x: Tensor) -> Callable[[], object]:
    """CALLS products of x, each with weights that were last read long ago."""
    first = make()
    n = min(MOST_COPIES, CACHES // first.nbytes + 1)
    copies = cycle([first, *(make() for _ in range(n - 1))])

    def run() -> None:
        with torch.inference_mode():
            for product in islice(copies, CALLS):
                product.of(x)

    return run
