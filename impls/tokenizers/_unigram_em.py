"""Learning a unigram lexicon: seeds from repeated substrings, EM, pruning by loss.

E   c_i = expected number of pieces i over all segmentations of the corpus
M   p_i = exp(digamma(c_i)) / sum_j exp(digamma(c_j))      (variational: p_i ~ c_i - 1/2)
prune the pieces whose removal costs least likelihood; single characters always stay
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma

from impls.tokenizers._alphabet import cover
from impls.tokenizers.kernels import suffix_array

SUB_ITERATIONS = 2  # EM steps between prunings, as in the sentencepiece library
SPARE = 1.1  # prune to this share above the wanted size, then cut by probability
LOWEST_COUNT = 0.5  # a piece expected less often than this is removed


class Lexicon(NamedTuple):
    """Pieces with their probabilities, which sum to one."""

    pieces: tuple[str, ...]
    p: NDArray[np.float64]  # (V,)


@dataclass
class Lattices:
    """All segmentations of the distinct words of a corpus into candidate pieces."""

    letters: NDArray[np.int32]  # (n,) code point + 1, and 0 after each word
    weights: NDArray[np.float64]  # (n,) occurrences of the word around each letter
    offsets: NDArray[np.int64]  # (n + 1,) edges that leave each position
    edges: NDArray[np.int32]  # (E,) piece of each edge
    places: NDArray[np.int64]  # (V,) a position of each piece
    lengths: NDArray[np.int32]  # (V,) letters of each piece
    p: NDArray[np.float64]  # (V,)
    depth: int

    def piece(self, n: int) -> str:
        """Text of a piece."""
        place = self.places[n]
        return "".join(chr(c - 1) for c in self.letters[place : place + self.lengths[n]].tolist())

    def expect(self) -> tuple[NDArray[np.float64], float]:
        """Expected counts (V,) and the log-likelihood in nats."""
        return suffix_array.expect(  # type: ignore[no-any-return]
            self.letters, self.weights, self.offsets, self.edges, self.lengths, self.p, self.depth
        )

    def maximise(self, counts: NDArray[np.float64], *, variational: bool = True) -> None:
        """Probabilities from expected counts."""
        share = np.exp(digamma(np.maximum(counts, LOWEST_COUNT))) if variational else counts
        self.p = share / share.sum()

    def keep(self, kept: NDArray[np.bool_]) -> None:
        """Remove the other pieces and give their probability to these."""
        numbers = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
        self.edges = suffix_array.keep_edges(self.offsets, self.edges, numbers)
        self.places, self.lengths = self.places[kept], self.lengths[kept]
        self.p = self.p[kept] / self.p[kept].sum()

    def loss(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-likelihood lost with each piece, infinite for single letters, (V,)."""
        return suffix_array.respell(  # type: ignore[no-any-return]
            self.places, self.offsets, self.edges, self.lengths, self.p, np.maximum(counts, 1e-9)
        )


def learn_lexicon(
    word_counts: dict[bytes, int],
    *,
    size: int,
    coverage: float,
    max_length: int,
    seed_size: int,
    shrink: float,
) -> Lexicon:
    """At most `size` pieces for words in UTF-8 that occur so often.

    Raises:
        ValueError: if there are no words, or the alphabet alone does not fit.
    """
    counts = {word.decode(): n for word, n in word_counts.items()}
    if not counts:
        raise ValueError("the corpus holds no words: train on texts that are not empty")
    alphabet = cover(counts, coverage)
    if len(alphabet) > size:
        raise ValueError(
            f"the alphabet has {len(alphabet)} characters but the vocabulary has room for {size} "
            "beside special tokens and bytes: raise vocab_size or lower character_coverage"
        )
    return learn(seed(counts, alphabet, max_length, seed_size), alphabet, size, shrink=shrink)


def seed(counts: dict[str, int], alphabet: set[str], max_length: int, seed_size: int) -> Lattices:
    """Lattices of the seed lexicon: letters, and substrings of highest count * length.

    counts: occurrences of each distinct word; alphabet: letters that longer pieces may hold.
    """
    text = "".join(f"{word}\0" for word in counts)
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    word_lengths = np.array([len(word) + 1 for word in counts])
    letters = (codes + 1).astype(np.int32)
    letters[np.cumsum(word_lengths) - 1] = 0
    weights = np.repeat(np.array(list(counts.values()), np.float64), word_lengths)

    order = suffix_array.sort_suffixes(letters, max_length)
    padded = np.append(letters, np.zeros(max_length + 1, np.int32))
    shared = suffix_array.common_prefixes(padded, order, max_length)
    found = suffix_array.repeats(padded, order, shared, max_length)
    found, frequency = _best_seeds(found, letters, weights, order, alphabet, seed_size)
    offsets, edges = suffix_array.edges(order, found, len(letters))
    return Lattices(
        letters=letters,
        weights=weights,
        offsets=offsets,
        edges=edges,
        places=order[found[:, 1]],
        lengths=found[:, 0].copy(),
        p=frequency / frequency.sum(),
        depth=max_length,
    )


def _best_seeds(
    found: NDArray[np.int32],
    letters: NDArray[np.int32],
    weights: NDArray[np.float64],
    order: NDArray[np.int64],
    alphabet: set[str],
    seed_size: int,
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """All single letters and the best longer substrings, with their frequencies."""
    single, first = np.unique(letters[order], return_index=True)
    last = np.append(first[1:], len(order)) - 1
    chars = np.stack((np.ones_like(first), first, last), 1)[single > 0].astype(np.int32)
    rare = ~np.isin(letters, [ord(c) + 1 for c in alphabet]) & (letters > 0)
    n_rare = np.concatenate(([0], np.cumsum(rare)))
    seen = np.concatenate(([0.0], np.cumsum(weights[order])))

    start, length = order[found[:, 1]], found[:, 0]
    frequency = seen[found[:, 2] + 1] - seen[found[:, 1]]
    usable = (length > 1) & (frequency > 1) & (n_rare[start + length] == n_rare[start])
    found, frequency = found[usable], frequency[usable]
    best = np.argsort(-frequency * found[:, 0], kind="stable")[:seed_size]
    found = np.concatenate((chars, found[best]))
    return found, seen[found[:, 2] + 1] - seen[found[:, 1]]


def learn(lattices: Lattices, alphabet: set[str], size: int, *, shrink: float) -> Lexicon:
    """The lexicon of at most `size` pieces, single letters of the alphabet always among them."""
    while True:
        for _ in range(SUB_ITERATIONS):
            counts, _ = lattices.expect()
            kept = (counts >= LOWEST_COUNT) | (lattices.lengths == 1)
            lattices.keep(kept)
            lattices.maximise(counts[kept])
        n_pieces = len(lattices.p)
        wanted = int(size * SPARE)
        if n_pieces <= wanted:
            break
        loss = lattices.loss(counts[kept])
        n_kept = max(wanted, int(shrink * n_pieces))
        _keep_best(lattices, loss, n_kept)
    n_other = int((lattices.lengths == 1).sum()) - len(alphabet)  # letters without a piece
    _keep_best(lattices, np.where(lattices.lengths == 1, np.inf, lattices.p), size + n_other)
    lattices.maximise(lattices.expect()[0])
    return _lexicon(lattices, alphabet)


def _keep_best(lattices: Lattices, worth: NDArray[np.float64], n_kept: int) -> None:
    kept = np.zeros(len(worth), np.bool_)
    kept[np.argsort(-worth, kind="stable")[:n_kept]] = True
    lattices.keep(kept)


def _lexicon(lattices: Lattices, alphabet: set[str]) -> Lexicon:
    """Pieces from the most probable on; ties by text."""
    found = [
        (float(p), piece)
        for n, p in enumerate(lattices.p)
        if len(piece := lattices.piece(n)) > 1 or piece in alphabet
    ]
    found.sort(key=lambda item: (-item[0], item[1]))
    p = np.array([item[0] for item in found])
    return Lexicon(tuple(piece for _, piece in found), p / p.sum())
