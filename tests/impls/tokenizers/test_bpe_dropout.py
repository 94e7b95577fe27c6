from collections import Counter

import numpy as np
import pytest

from impls.tokenizers import _probes
from impls.tokenizers._byte_level import BYTE_IDS, ByteMergeTokenizer
from impls.tokenizers.bpe_dropout import BPEDropout, BPEDropoutTokenizer
from impls.tokenizers.byte_bpe import ByteBPE


def tokenizer(dropout):
    return BPEDropout(vocab_size=600, dropout=dropout).train(_probes.corpus(0))


def test_without_dropout_a_sample_is_bpe():
    made, rng = tokenizer(0.0), np.random.default_rng(0)
    bpe = ByteBPE(vocab_size=600).train(_probes.corpus(0))
    for text in _probes.texts(seed=0, size=30_000):
        np.testing.assert_array_equal(made.sample(text, rng), bpe.encode(text))


def test_with_certain_dropout_a_sample_is_the_bytes():
    made, rng = tokenizer(1.0), np.random.default_rng(0)
    for text in _probes.texts(seed=0, size=30_000):
        np.testing.assert_array_equal(
            made.sample(text, rng), BYTE_IDS[np.frombuffer(text.encode(), np.uint8)]
        )


def test_samples_decode_to_the_text_and_follow_the_seed():
    made = tokenizer(0.3)
    text = _probes.corpus(0)[0]
    first, again = (made.sample(text, np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert made.decode(first) == text
    assert not np.array_equal(first, made.sample(text, np.random.default_rng(2)))


def test_sampled_segmentations_have_the_probabilities_of_the_algorithm():
    """Merges (a, b), then (ab, c), on abc: p stops at once, (1 - p) p after one, (1 - p)^2 none."""
    a, b, c = BYTE_IDS[np.frombuffer(b"abc", np.uint8)].tolist()
    p, n = 0.3, 20_000
    made = BPEDropoutTokenizer(BPEDropout(dropout=p), np.array([[a, b], [256, c]]))
    rng = np.random.default_rng(0)
    seen = Counter(len(made.sample("abc", rng)) for _ in range(n))
    for length, probability in ((3, p), (2, (1 - p) * p), (1, (1 - p) ** 2)):
        deviation = (probability * (1 - probability) / n) ** 0.5
        assert abs(seen[length] / n - probability) < 5 * deviation


def test_encoding_is_deterministic_bpe():
    made = tokenizer(0.5)
    bpe = ByteMergeTokenizer.from_state(ByteBPE(), made.state())
    text = _probes.corpus(0)[0]
    np.testing.assert_array_equal(made.encode(text), bpe.encode(text))


def test_a_dropout_that_is_no_probability_is_refused():
    with pytest.raises(ValueError, match=r"1\.5"):
        BPEDropout(dropout=1.5)
