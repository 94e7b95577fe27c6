"""ALiBi as context extension: a model trained with linear biases reads on as it is.

    s_ij = q_i . k_j / sqrt(d) - m_h (i - j)

m_h slope of head h. Nothing is changed: the penalty keeps far keys out, at lengths never seen too,
so the model neither breaks nor reads far.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from harness.card import Card
from impls.context.interface import ModelRule
from impls.models.decoder import Decoder

CARD = Card(
    cls="ALiBi",
    title="ALiBi (trained with it)",
    paper="arXiv:2108.12409",
    year=2021,
    summary="A model trained with linear biases reads longer texts unchanged.",
    oracle="identity: the model itself",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ALiBi(ModelRule):
    """Train short, test long."""

    kind: ClassVar = "trained"
    unchanged_within: ClassVar = True
    trained_with: ClassVar = "positions/alibi"

    @contextmanager
    def applied(
        self, model: nn.Module, *, train_len: int | None = None, target_len: int
    ) -> Iterator[nn.Module]:
        """The model, if it was trained with linear biases."""
        if not _has_linear_biases(model):
            raise ValueError(
                f"this {type(model).__name__} was not trained with linear biases, which cannot be "
                "added later: train it with positions/alibi, or choose another technique"
            )
        yield model


def _has_linear_biases(model: nn.Module) -> bool:
    if isinstance(model, Decoder):
        return type(model.recipes["encoding"]).__name__ == "ALiBi"
    config = getattr(model, "config", None)
    attention = getattr(config, "attn_config", None)  # MPT's
    own = getattr(config, "alibi", False) or getattr(attention, "alibi", False)
    return bool(own) or getattr(config, "model_type", None) == "bloom"
