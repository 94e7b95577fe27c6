"""Where an extension rule finds and puts a model's position encoding, whatever model it is."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from torch import nn

from impls.context._decoder import DecoderHost
from impls.context._hf import LlamaHost, is_llama_like
from impls.models.decoder import Decoder
from impls.models.hooks import Cache, PositionEncoding


class Host(Protocol):
    """A model seen as something that holds a position encoding."""

    train_len: int  # tokens the model says it was trained on
    encoding: PositionEncoding  # the one in force

    def placed(
        self, encoding: PositionEncoding, new_cache: Callable[[], Cache] | None
    ) -> AbstractContextManager[None]:
        """Put another in force for the time of a block.

        Args:
            encoding: the other encoding.
            new_cache: makes the decoding cache of one layer; None: as the model makes its own.

        Raises:
            ValueError: if the model's attention cannot use it.
        """


def host_of(model: nn.Module) -> Host:
    """The model as a host.

    Raises:
        ValueError: if it is neither this project's decoder nor a Llama-type model.
    """
    if isinstance(model, Decoder):
        return DecoderHost(model)
    if is_llama_like(model):
        return LlamaHost(model)
    raise ValueError(
        f"{type(model).__name__} has no rotation to extend: take impls.models.decoder.Decoder, "
        "or a Hugging Face model with `rotary_emb` and `config.rope_parameters`, as Llama's"
    )
