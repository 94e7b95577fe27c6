from collections import Counter

import numpy as np
import pytest
import regex

from impls.tokenizers import _probes
from impls.tokenizers.word import Word


def test_ids_are_ranks_and_ties_at_the_cut_follow_the_text():
    tokenizer = Word(vocab_size=4).train(["b a c a b a d c"])
    assert tokenizer.words == [b"a", b"b", b"c"]
    assert tokenizer.encode("a d c b").tolist() == [0, 3, 2, 1]
    assert tokenizer.unk_id == 3


def test_the_share_of_unknown_words_is_what_counting_gives():
    texts = _probes.corpus(0)
    tokenizer = Word(vocab_size=500).train(texts)
    counts = Counter(w for text in texts for w in regex.findall(r"\w+|[^\w\s]+", text))
    covered = sum(counts[word.decode()] for word in tokenizer.words)
    ids = tokenizer.encode_batch(texts).ids
    assert np.count_nonzero(ids == tokenizer.unk_id) == counts.total() - covered


def test_vocabulary_equals_that_of_hugging_face():
    pytest.importorskip("tokenizers")
    from impls.tokenizers.peers.hf_word import HFWordPeer

    texts = [*_probes.corpus(0), *_probes.texts(seed=1, size=50_000)]
    for pattern in ("words", "whitespace"):
        recipe = Word(vocab_size=1500, pattern=pattern, special_tokens=("<|end|>",))
        assert HFWordPeer().train(texts, recipe).state() == recipe.train(texts).state()


def test_decoding_joins_words_by_a_space():
    tokenizer = Word(vocab_size=10).train(["one, two"])
    assert tokenizer.decode(tokenizer.encode("two\n\n one,two three")) == "two one , two <unk>"


def test_long_words_that_differ_late_are_told_apart():
    first, second = "x" * 40 + "a", "x" * 40 + "b"
    tokenizer = Word(vocab_size=10).train([f"{first} {second} {first}"])
    assert tokenizer.encode(f"{second} {first} {'x' * 41}").tolist() == [1, 0, 2]


def test_a_vocabulary_without_a_word_is_refused():
    with pytest.raises(ValueError, match="at least 3"):
        Word(vocab_size=2, special_tokens=("<|end|>",))
