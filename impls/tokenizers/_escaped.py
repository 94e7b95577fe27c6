"""Text as the sentencepiece library sees it: normalized, spaces squeezed and written U+2581."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from impls.tokenizers._charsmap import Charsmap
from impls.tokenizers._model_proto import ModelProto
from impls.tokenizers._normalize import normalize
from impls.tokenizers._word_tokenizer import Words, joined, split
from impls.tokenizers.kernels import sentencepiece, unigram

SPACE = "\u2581"


def normalized(texts: Sequence[str], model: ModelProto, charsmap: Charsmap) -> "Texts":
    """The texts under the model's normalizer."""
    if model.normalizer == "nfkc" and not model.charsmap:
        texts = [normalize("nfkc", text) for text in texts]
    data, text_ends = joined(texts)
    ends = np.empty_like(text_ends)
    size = 3 * len(data) + 16 * (len(texts) + 1)
    while True:
        out = np.empty(size, np.uint8)
        if sentencepiece.normalize(
            data,
            text_ends,
            *charsmap,
            model.add_dummy_prefix,
            model.remove_extra_whitespaces,
            model.treat_whitespace_as_suffix,
            model.escape_whitespaces,
            out,
            ends,
        ):
            return Texts(out[: ends[-1] if len(ends) else 0], ends)
        size *= 4


class Texts(NamedTuple):
    """Texts that lie one after the other."""

    data: NDArray[np.uint8]  # (n bytes,) UTF-8
    ends: NDArray[np.int64]  # (N,)


def words_start_at_spaces(tokens: Sequence[bytes]) -> bool:
    """Whether no piece runs over the start of a word, so that words can be taken one by one."""
    space = SPACE.encode()
    for token in tokens:
        rest = token
        while rest.startswith(space):
            rest = rest.removeprefix(space)
        if space in rest:
            return False
    return True


def escaped_words(data: NDArray[np.uint8], text_ends: NDArray[np.int64], by_word: bool) -> Words:
    """Words of the texts, each from the first of some U+2581 on; whole texts if not `by_word`."""
    if by_word:
        return split(data, text_ends, unigram.ESCAPES)
    filled = np.diff(text_ends, prepend=0) > 0
    return Words(data, text_ends[filled].astype(np.int32), np.cumsum(filled))
