"""Extension rules on this project's decoder: its `encoding` is another one inside the block."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from impls.context._log_scaled import unwrapped
from impls.context._scored import Scored
from impls.models.attention import SelfAttention
from impls.models.decoder import Decoder
from impls.models.hooks import AttentionLayer, Cache, PositionEncoding


class DecoderHost:
    """A decoder as something that holds a position encoding."""

    def __init__(self, model: Decoder) -> None:
        self.model = model
        self.train_len = model.shape.max_len
        self.encoding = model.encoding

    @contextmanager
    def placed(
        self, encoding: PositionEncoding, new_cache: Callable[[], Cache] | None
    ) -> Iterator[None]:
        """Put another encoding, and its cache, in force for the time of a block.

        Raises:
            ValueError: if an attention layer would not ask the encoding for its scores.
        """
        if isinstance(unwrapped(encoding), Scored):
            self._check_layers(encoding)
        trained = self.model.encoding
        with ExitStack() as undo:
            for block in self.model.blocks if new_cache else ():
                undo.enter_context(_caching(block.attention, new_cache))
            self.model.encoding = encoding
            undo.callback(setattr, self.model, "encoding", trained)
            yield

    def _check_layers(self, encoding: PositionEncoding) -> None:
        for block in self.model.blocks:
            layer = block.attention
            if not (isinstance(layer, SelfAttention) and layer.kernel.takes_bias):
                name = type(getattr(layer, "kernel", layer)).__name__
                raise ValueError(
                    f"{type(encoding).__name__} changes scores and {name} has none to change: "
                    "build the decoder with dense or full attention"
                )


@contextmanager
def _caching(layer: AttentionLayer, new_cache: Callable[[], Cache]) -> Iterator[None]:
    """The layer with decoding states of another kind."""
    before = layer.__dict__.get("init_state")
    layer.init_state = lambda batch, max_len: new_cache()
    try:
        yield
    finally:
        if before is None:
            del layer.init_state
        else:
            layer.init_state = before
