"""What stands before a compressed weight: a linear map of the input that the weight has undone.

    y = W x = (W M^-1) (M x)

The stored weight is W M^-1; `undone` gives back W. x (..., C).
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

MAPS: dict[str, type["InputMap"]] = {}


class InputMap(nn.Module):
    """A linear map of the input; its buffers are stored and counted."""

    kind: ClassVar[str]

    def __init_subclass__(cls) -> None:
        """Make the kind known to `unpack`."""
        super().__init_subclass__()
        MAPS[cls.kind] = cls

    def undone(self, weight: Tensor) -> Tensor:
        """The weight (R, C) over plain inputs, from the one over mapped inputs."""
        raise NotImplementedError

    def header(self) -> dict[str, Any]:
        """What `from_packed` needs beside the buffers, as JSON."""
        return {}

    @classmethod
    def from_packed(cls, header: Mapping[str, Any], buffers: Mapping[str, Tensor]) -> Self:
        """The map of a header and buffers."""
        return cls(**buffers, **header)


class ChannelScale(InputMap):
    """M = diag(1 / s): each channel divided by its own scale, (C,) above 0."""

    kind = "channel_scale"

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Each channel over its scale."""
        return x / self.scale.to(x.dtype)

    def undone(self, weight: Tensor) -> Tensor:
        """W diag(1 / s)."""
        return weight / self.scale.float()


class ColumnOrder(InputMap):
    """M puts the channels in another order: channel `order[j]` stands at place j."""

    kind = "column_order"

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        narrow = torch.int16 if len(order) < 2**15 else torch.int32
        self.register_buffer("order", order.to(narrow))

    def forward(self, x: Tensor) -> Tensor:
        """The channels in the other order."""
        return x[..., self.order.long()]

    def undone(self, weight: Tensor) -> Tensor:
        """The columns back where they were."""
        return weight[:, torch.argsort(self.order.long())]
