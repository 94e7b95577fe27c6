"""A vocabulary with scores, ready to merge text: SentencePiece's BPE.

while two neighbours make a piece: merge those that make the piece of highest score, leftmost
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from impls.tokenizers._word_tokenizer import Words, build_trie, ragged
from impls.tokenizers.interface import Ragged
from impls.tokenizers.kernels import sentencepiece, word_cache


class BPESegmenter:
    """Segments UTF-8 with U+2581 for spaces.

    tokens: the pieces by id, empty for tokens no text contains; scores (V,): the higher merges
    first; byte_ids: the 256 byte tokens, or none.
    """

    def __init__(
        self,
        tokens: Sequence[bytes],
        scores: NDArray[np.float64],
        *,
        unk_id: int,
        byte_ids: Sequence[int] = (),
    ) -> None:
        self.unk_id = unk_id
        self.byte_ids = np.array(byte_ids, np.int32)
        self._ranks = np.unique(-scores, return_inverse=True)[1].astype(np.int32)
        self._trie = build_trie(tokens, [0] * len(tokens))
        self._cache = word_cache.new_cache()

    def encode(self, words: Words) -> Ragged:
        """Ids of texts, given as words no piece runs over."""
        out = np.empty(len(words.data), np.uint32)
        id_ends = np.empty(len(words.ends), np.int64)
        sentencepiece.encode_bpe(
            *words,
            *self._trie,
            self._ranks,
            self.unk_id,
            self.byte_ids,
            self._cache,
            out,
            id_ends,
        )
        return ragged(out, id_ends, words.text_words)
