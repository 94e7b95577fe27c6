"""Context extension: a trained model reads a text longer than it was trained on.

A recipe changes a model for the time of a `with` block and gives it back as it was:

    with YaRN(factor=4.0).applied(model, target_len=2048):
        logits = model(ids)

It works on this project's decoder and on Hugging Face Llama-type models; decoding states and
caches are made and used inside one block. Blocks nest: `LogNScaling` and `WindowAttention` go on
top of a rotation that another rule has changed. Five kinds: `frequency` (another rotation), `score`
(another rule for far scores), `mask` (fewer keys), `decode` (another rule for the next token's
probabilities, `DecodeRule`), `trained` (the model was trained for it).
L trained length, s = target length / L, theta_i inverse frequencies, d rotary width.

What every member satisfies (tests/contracts/test_context.py): leaving the block restores every bit;
within the trained length a rule that is `unchanged_within` changes nothing; one pass equals
decoding with a cache, unless `exact_decoding` is False and the gap is a result.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from impls.context._host import host_of
from impls.context._rescaled import Rescaled, RopeShape, as_trained
from impls.models.hooks import Cache, Frame, PositionEncoding

__all__ = [
    "Cache",
    "ContextExtension",
    "DecodeRule",
    "EncodingRule",
    "Frame",
    "FrequencyRecipe",
    "ModelRule",
    "PositionEncoding",
    "RopeShape",
    "scale_of",
]

Kind = Literal["frequency", "score", "mask", "decode", "trained"]


class ContextExtension(ABC):
    """A context-extension technique: a `ModelRule` or a `DecodeRule`."""

    kind: ClassVar[Kind]


class ModelRule(ContextExtension):
    """A technique that changes how a model reads, for the time of a block."""

    exact_decoding: ClassVar[bool] = True  # one pass equals decoding with a cache
    unchanged_within: ClassVar[bool] = False  # up to L tokens the model answers as trained
    trained_with: ClassVar[str] = "positions/rope"  # position technique the model must have

    @abstractmethod
    def applied(
        self, model: nn.Module, *, train_len: int | None = None, target_len: int
    ) -> AbstractContextManager[nn.Module]:
        """The model, extended inside the block and restored after it.

        Args:
            model: this project's `Decoder`, or a Hugging Face Llama-type model.
            train_len: tokens it was trained on; None: what the model's own shape or config says.
            target_len: tokens it shall read; a rule without a factor of its own derives s from it.

        Raises:
            ValueError: if the model has no position encoding this technique can change, or
                target_len is below train_len.
        """


class EncodingRule(ModelRule):
    """A technique that puts another position encoding into the model."""

    @abstractmethod
    def extended(
        self, encoding: PositionEncoding, *, train_len: int, target_len: int
    ) -> PositionEncoding:
        """What takes the place of the model's encoding.

        Raises:
            ValueError: if this technique cannot build on the encoding.
        """

    def cache(self, train_len: int) -> Callable[[], Cache] | None:
        """Makes the decoding cache of one layer; None: as the model makes its own."""
        return None

    @contextmanager
    def applied(
        self, model: nn.Module, *, train_len: int | None = None, target_len: int
    ) -> Iterator[nn.Module]:
        """The model with the other encoding in place."""
        host = host_of(model)
        train_len = host.train_len if train_len is None else train_len
        if not 2 <= train_len <= target_len:
            raise ValueError(
                f"need 2 <= train_len <= target_len, got {train_len} and {target_len}: "
                "a model is extended to more tokens than it was trained on"
            )
        encoding = self.extended(host.encoding, train_len=train_len, target_len=target_len)
        with host.placed(encoding, self.cache(train_len)):
            yield model


class FrequencyRecipe(EncodingRule):
    """A technique that changes nothing but the frequencies of the rotation."""

    kind = "frequency"

    @abstractmethod
    def frequencies(self, rope: RopeShape, *, target_len: int, length: int) -> tuple[Tensor, float]:
        """Inverse frequencies (d/2,) float64 and the factor of cos and sin.

        Args:
            rope: the rotation as trained.
            target_len: tokens the model shall read.
            length: tokens of the sequence so far.
        """

    def extended(
        self, encoding: PositionEncoding, *, train_len: int, target_len: int
    ) -> PositionEncoding:
        """The rotation under these frequencies."""
        trained = as_trained(encoding)
        rope = RopeShape(d=trained.d, base=trained.base, train_len=train_len)
        return Rescaled(
            trained, lambda length: self.frequencies(rope, target_len=target_len, length=length)
        )


class DecodeRule(ContextExtension):
    """A technique that reads several contexts side by side and joins their predictions."""

    kind = "decode"

    @abstractmethod
    def combine(
        self, with_context: Tensor, without: Tensor, chosen: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Joint log-probabilities (V,), and which context they came from.

        Args:
            with_context: log-probabilities of the next token given each context, (n, V).
            without: the same given none, (V,).
            chosen: the context chosen for the token before, if any.
        """

    @abstractmethod
    def log_probabilities(
        self, model: nn.Module, contexts: Sequence[Tensor], prompt: Tensor, continuation: Tensor
    ) -> Tensor:
        """Joint log-probabilities (T, V) of each of T tokens, the true ones before it given.

        Args:
            model: this project's `Decoder`, or a Hugging Face causal model.
            contexts: ids of each context, (t_k,), read independently; some may be empty.
            prompt: ids that follow every context, (t,), at least one.
            continuation: the ids to predict, (T,).
        """

    @abstractmethod
    def generate(
        self,
        model: nn.Module,
        contexts: Sequence[Tensor],
        prompt: Tensor,
        n_tokens: int,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Ids of `n_tokens` more tokens, (n_tokens,); greedy without a generator.

        Arguments as of `log_probabilities`.
        """


def scale_of(factor: float | None, train_len: int, target_len: int) -> float:
    """A technique's own factor, or target length over trained length where it has none."""
    return target_len / train_len if factor is None else factor
