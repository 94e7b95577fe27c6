"""Layer reduction: whole blocks go, those that turn the hidden states least; the rest may heal.

    influence  BI_l = 1 - E cos(h_l, h_l+1), the lowest go                       (arXiv:2403.03853)
    angle      n blocks in a row, least E arccos(cos(h_l, h_l+n)) / pi           (arXiv:2403.17887)

h_l what block l reads; means are over all tokens but padding (the second paper takes the last of
each text). `every` drops blocks in even distances, as DistilBERT's makers did; `first`, `last` and
`listed` are for comparison. Healing trains what is left to give the hidden states, or the logits,
that the whole model gives. A block's influence tells what it does, not what its loss costs.

The copy is a plain model of fewer blocks: its shape or configuration says how many, other
techniques go on from it, and its files load into a model of that shape.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.card import Card
from impls.compression._calibration import tokens
from impls.compression._depth import drop, hidden_states, turns
from impls.compression._grid import check_finite
from impls.compression._hosts import Batch, blocks_of, kept, linears_of, run
from impls.compression._learning import Loss, learn
from impls.compression.interface import Calibration, Compression, calibrated
from impls.models.encoder import Encoder

CARD = Card(
    cls="LayerReduction",
    title="Layer reduction",
    paper="arXiv:2403.03853",
    year=2024,
    summary="Drops the blocks that change hidden states least, and lets the rest heal.",
    oracle="identity: without a block that does nothing, the same bits",
    exact=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerReduction(Compression):
    """Fewer blocks; `layers` of `compressed` says which may go: those with a layer it fits."""

    by: Literal["influence", "angle", "every", "first", "last", "listed"] = "influence"
    share: float = 0.25  # of all blocks, rounded down; one at least
    listed: tuple[int, ...] = ()  # which go, if by `listed`
    steps: int = 0  # of healing, a batch each
    lr: float = 1e-4  # of Adam
    match: Literal["hidden", "logits"] = "hidden"  # what healing makes equal

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share must be above 0 and below 1, got {self.share}")
        if (self.by == "listed") != bool(self.listed):
            raise ValueError(f"by 'listed' and listed blocks go together, got {self.by!r}")
        if self.steps < 0:
            raise ValueError(f"steps must be at least 0, got {self.steps}")
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")

    def compressed(
        self, model: nn.Module, calibration: Calibration | None = None, *, layers: str = "*"
    ) -> nn.Module:
        """A copy with fewer blocks; calibration is for rules that look, and for healing."""
        small = copy.deepcopy(model).eval()
        for name, linear in linears_of(small, layers).items():
            check_finite(linear.weight.detach(), f"{name}: a weight")
        gone = self.chosen(small, calibration, layers)
        if self.steps:
            batches = calibrated(self, calibration).batches
            teacher = copy.deepcopy(small)
            drop(small, gone)
            learn(small, self._loss(small, teacher), batches, steps=self.steps, lr=self.lr)
        else:
            drop(small, gone)
        return small

    def chosen(
        self, model: nn.Module, calibration: Calibration | None, layers: str = "*"
    ) -> list[int]:
        """The numbers of the blocks that go, in order.

        Raises:
            ValueError: if fewer may go than shall, or there is no such block.
        """
        blocks, linears = list(blocks_of(model)), linears_of(model, layers)
        may = [n for n, b in enumerate(blocks) if any(name.startswith(f"{b}.") for name in linears)]
        n_gone = len(self.listed) or max(1, int(self.share * len(blocks)))
        if not set(self.listed) <= set(may):
            raise ValueError(f"listed blocks must be among {may}, got {list(self.listed)}")
        if n_gone > len(may) or n_gone >= len(blocks):
            raise ValueError(
                f"{n_gone} of {len(blocks)} blocks shall go and {len(may)} may: lower share, or "
                "choose more layers"
            )
        if self.by == "influence":
            influence = turns(model, calibrated(self, calibration), 1)
            return sorted(sorted(may, key=lambda n: float(influence[n]))[:n_gone])
        if self.by == "angle":
            angles = turns(model, calibrated(self, calibration), n_gone, angles=True)
            return _run_of_least(angles, may, n_gone)
        even = [may[(2 * n + 1) * len(may) // (2 * n_gone)] for n in range(n_gone)]
        rules = {"every": even, "first": may[:n_gone], "last": may[-n_gone:]}
        return rules.get(self.by, sorted(self.listed))

    def _loss(self, model: nn.Module, teacher: nn.Module) -> Loss:
        seen = _last_hidden if self.match == "hidden" else _logits

        def loss(batch: Batch) -> Tensor:
            with torch.no_grad():
                wanted = seen(teacher, batch)
            found = seen(model, batch)
            if self.match == "hidden":
                return F.mse_loss(found, wanted)
            logs = found.log_softmax(-1), wanted.log_softmax(-1)
            return F.kl_div(*logs, log_target=True, reduction="batchmean")

        return loss


def _run_of_least(angles: Tensor, may: Sequence[int], length: int) -> list[int]:
    """So many blocks in a row that may go, of the least angle."""
    starts = [n for n in may if set(range(n, n + length)) <= set(may)]
    if not starts:
        raise ValueError(f"no {length} blocks in a row may go, only {list(may)}: lower share")
    start = min(starts, key=lambda n: float(angles[n]))
    return list(range(start, start + length))


def _last_hidden(model: nn.Module, batch: Batch) -> Tensor:
    """What the last block gives, (N, D)."""
    return hidden_states(model, batch)[-1]


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    """The model's logits, (N, V).

    Raises:
        ValueError: if it has none.
    """
    made = run(model, batch)
    if isinstance(model, Encoder):
        made = model.logits(made)
    logits = made if isinstance(made, Tensor) else getattr(made, "logits", None)
    if logits is None:
        raise ValueError(f"{type(model).__name__} gives no logits: match 'hidden'")
    return tokens(logits, kept(batch))
