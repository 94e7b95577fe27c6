"""A few steps of training on calibration batches, undone if they did not help."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from impls.compression._hosts import Batch

Loss = Callable[[Batch], Tensor]


@torch.enable_grad()
def learn(
    module: nn.Module, loss: Loss, batches: Sequence[Batch], *, steps: int, lr: float
) -> None:
    """Train a module's parameters by Adam, a batch a step, the rate falling evenly to 0.

    They are put back if all batches together have a larger loss than before; nothing else of the
    module changes, and no gradients stay.
    """
    trained = [p for p in module.parameters() if p.is_floating_point()]
    before, flags = [p.detach().clone() for p in trained], [p.requires_grad for p in trained]
    at_first = total(loss, batches)
    optimizer = torch.optim.Adam([p.requires_grad_() for p in trained], lr)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        optimizer.zero_grad()
        loss(batches[step % len(batches)]).backward()
        optimizer.step()
    optimizer.zero_grad()
    worse = not total(loss, batches) <= at_first
    with torch.no_grad():
        for parameter, old, flag in zip(trained, before, flags, strict=True):
            parameter.requires_grad_(flag)
            if worse:
                parameter.copy_(old)


@torch.no_grad()
def total(loss: Loss, batches: Sequence[Batch]) -> float:
    """The sum of all batches' losses."""
    return sum(float(loss(batch)) for batch in batches)
