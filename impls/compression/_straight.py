"""A linear layer that trains through the rounding it will have: gradients pass straight.

w^ = w + stop(Q(w) - w),      x^ = x + stop(Q(x) - x)      (arXiv:1308.3432)
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

Rounding = Callable[[Tensor], Tensor]


class StraightLinear(nn.Module):
    """A linear layer whose weight and input are rounded as they pass.

    Args:
        linear: the layer; its weight and bias become those trained.
        weight_rounding: of a weight (R, C).
        input_rounding: of an input (..., C); None: it stays.
    """

    def __init__(
        self, linear: nn.Linear, weight_rounding: Rounding, input_rounding: Rounding | None
    ) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight_rounding, self.input_rounding = weight_rounding, input_rounding

    def forward(self, x: Tensor) -> Tensor:
        """From (..., C) to (..., R)."""
        if self.input_rounding is not None:
            x = _straight(x, self.input_rounding)
        return F.linear(x, _straight(self.weight, self.weight_rounding), self.bias)


def _straight(x: Tensor, rounding: Rounding) -> Tensor:
    return x + (rounding(x.detach()).to(x.dtype) - x).detach()
