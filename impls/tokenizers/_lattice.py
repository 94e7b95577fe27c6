"""A vocabulary with scores, ready to segment text: shared by Unigram and SentencePiece.

    x* = argmax_x  sum_i log p(x_i)         over the segmentations x of a text

A character no piece equals costs the lowest score less 10, and becomes its UTF-8 bytes if there are
byte tokens, else the unknown token, once for a run of such characters.
"""

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from impls.tokenizers._word_tokenizer import Words, build_trie, ragged
from impls.tokenizers.interface import Ids, Ragged
from impls.tokenizers.kernels import unigram, word_cache

UNK_PENALTY = 10.0


class Segmenter:
    """Segments UTF-8 by a unigram lexicon.

    tokens: the pieces by id, empty for tokens no text contains; scores (V,): their log
    probabilities; byte_ids: the 256 byte tokens, or none. `single` repeats the float32 arithmetic
    of the sentencepiece library; without it sums are float64.
    """

    def __init__(
        self,
        tokens: Sequence[bytes],
        scores: NDArray[np.float64],
        *,
        unk_id: int,
        byte_ids: Sequence[int] = (),
        single: bool = False,
    ) -> None:
        self.scores = scores
        self.unk_id = unk_id
        self.byte_ids = np.array(byte_ids, np.int32)
        lowest = min(scores[n] for n, token in enumerate(tokens) if token)
        self.unk_score = float(lowest - UNK_PENALTY)
        if single:
            self.unk_score = float(np.float32(lowest) - np.float32(UNK_PENALTY))
        self._trie = build_trie(tokens, [0] * len(tokens))
        self._lexicon = unigram.Lexicon(
            *self._trie, scores, self.unk_score, unk_id, self.byte_ids, single
        )
        self._cache = word_cache.new_cache()

    def encode(self, words: Words) -> Ragged:
        """Ids of texts, given as words no piece runs over."""
        out = np.empty(len(words.data), np.uint32)
        id_ends = np.empty(len(words.ends), np.int64)
        unigram.encode(*words, self._lexicon, self._cache, out, id_ends)
        return ragged(out, id_ends, words.text_words)

    def sample(self, data: NDArray[np.uint8], alpha: float, rng: np.random.Generator) -> Ids:
        """Ids of a random segmentation x, drawn with probability proportional to p(x)**alpha."""
        offsets, stops, pieces = unigram.lattice(data, *self._trie)
        weights = alpha * self._weights(pieces)
        after = unigram.backward(offsets, stops, weights)
        path = unigram.draw(offsets, stops, weights, after, rng.random(len(data)))
        return self._ids(data, stops[path], pieces[path])

    def n_best(self, data: NDArray[np.uint8], n: int) -> list[tuple[float, Ids]]:
        """The n most probable segmentations with their log probabilities, best first."""
        offsets, stops, pieces = unigram.lattice(data, *self._trie)
        weights = self._weights(pieces)
        # best[k]: up to n (score, edge, rank among the best of where the edge stops).
        best: list[list[tuple[float, int, int]]] = [[] for _ in offsets]
        best[-1] = [(0.0, -1, 0)]
        for at in range(len(data) - 1, -1, -1):
            best[at] = heapq.nlargest(
                n,
                (
                    (weights[edge] + score, -edge, -rank)
                    for edge in range(offsets[at], offsets[at + 1])
                    for rank, (score, _, _) in enumerate(best[stops[edge]])
                ),
            )
        found = []
        for rank, (score, _, _) in enumerate(best[0]):
            at, path = 0, []
            while at < len(data):
                _, edge, rank = best[at][rank]
                edge, rank = -edge, -rank
                path.append(edge)
                at = stops[edge]
            found.append((float(score), self._ids(data, stops[path], pieces[path])))
        return found

    def log_probability(self, ids: Sequence[int] | Ids) -> float:
        """Sum of the scores of the ids; a character spelled in bytes counts once."""
        scores = self.scores.copy()
        scores[self.unk_id] = self.unk_score
        for byte, token in enumerate(self.byte_ids):
            scores[token] = 0.0 if byte & 0xC0 == 0x80 else self.unk_score
        return float(scores[np.asarray(ids, np.int64)].sum())

    def _weights(self, pieces: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.where(pieces < 0, self.unk_score, self.scores[pieces])

    def _ids(self, data: NDArray[np.uint8], stops: NDArray, pieces: NDArray) -> Ids:
        ids: list[int] = []
        start, was_unknown = 0, False
        for stop, piece in zip(stops.tolist(), pieces.tolist(), strict=True):
            if piece >= 0:
                ids.append(piece)
            elif len(self.byte_ids):
                ids += self.byte_ids[data[start:stop]].tolist()
            elif not was_unknown:
                ids.append(self.unk_id)
            start, was_unknown = stop, piece < 0
        return np.array(ids, np.uint32)
