import json
import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import regex

from impls.tokenizers import _probes
from impls.tokenizers._byte_level import (
    BYTE_IDS,
    BYTES,
    CHARACTERS,
    ByteMergeTokenizer,
    first_merges,
    merges_of_ranks,
)
from impls.tokenizers._corpus import count_words
from impls.tokenizers._patterns import PATTERNS
from impls.tokenizers.byte_bpe import ByteBPE
from impls.tokenizers.interface import agreement
from impls.tokenizers.kernels import bpe_encode, bpe_segment, bpe_train, scan, words

TIES = ("id_pair", "byte_pair", "greatest_text")


def naive_merges(texts, n_merges, min_frequency, tie_rule):
    """Algorithm 1 of the paper, counting everything anew for each merge."""
    counted = Counter(w for text in texts for w in regex.findall(PATTERNS["gpt2"], text))
    corpus = {tuple(int(BYTE_IDS[b]) for b in w.encode()): n for w, n in counted.items()}
    pieces = [bytes([b]) for b in BYTES]
    key = {
        "id_pair": lambda pair: (-pair[0], -pair[1]),
        "byte_pair": lambda pair: tuple(-(pieces[t][0] if t < 256 else t) for t in pair),
        "greatest_text": lambda pair: (pieces[pair[0]], pieces[pair[1]]),
    }[tie_rule]
    merges = []
    while len(merges) < n_merges:
        pairs = Counter()
        for word, n in corpus.items():
            for pair in pairwise(word):
                pairs[pair] += n
        best = max(pairs, key=lambda pair: (pairs[pair], key(pair)), default=None)
        if best is None or pairs[best] < min_frequency:
            break
        merges.append((*best, pairs[best]))
        corpus = {merge(word, best, len(pieces)): n for word, n in corpus.items()}
        pieces.append(pieces[best[0]] + pieces[best[1]])
    return merges


def merge(word, pair, new):
    out = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] = new
        else:
            out.append(symbol)
    return tuple(out)


@pytest.mark.parametrize("tie_rule", TIES)
def test_merges_are_those_of_the_definition(tie_rule):
    texts = [
        "low lower newest widest aaaa aaaaaaa banana bananas " * 2,
        _probes.corpus(0)[0][:1500],
    ]
    expected = naive_merges(texts, 150, 2, tie_rule)
    found = first_merges(count_words(texts, "gpt2"), 150, 2, tie_rule)
    assert found.tolist() == [list(merge) for merge in expected]


@pytest.mark.parametrize("tie_rule", TIES)
def test_merge_counts_never_rise(tie_rule):
    counts = first_merges(count_words(_probes.corpus(1), "gpt2"), 2000, 2, tie_rule)[:, 2]
    assert (np.diff(counts) <= 0).all()


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "o200k"])
def test_merges_equal_those_of_hugging_face(pattern):
    pytest.importorskip("tokenizers")
    from impls.tokenizers.peers.hf_bpe import HFBPEPeer

    texts = [*_probes.corpus(2), *_probes.texts(seed=3, size=50_000)]
    recipe = ByteBPE(vocab_size=2000, pattern=pattern, special_tokens=("<|end|>",))
    theirs = HFBPEPeer().train(texts, recipe)
    assert theirs.state() == recipe.train(texts).state()


def test_merges_equal_those_of_rustbpe():
    pytest.importorskip("rustbpe")
    from impls.tokenizers.peers.rustbpe import RustBPEPeer

    recipe = ByteBPE(vocab_size=2000, tie_rule="byte_pair", min_frequency=1)
    theirs = RustBPEPeer().train(_probes.corpus(2), recipe)
    ours = recipe.train(_probes.corpus(2))
    assert theirs.state() == ours.state()
    for text in _probes.texts(seed=4, size=20_000):
        assert list(theirs.encode(text)) == list(ours.encode(text))


def naive_ids(merges, word):
    rank = {}
    for m, pair in enumerate(map(tuple, merges)):
        rank.setdefault(pair, m)
    symbols = tuple(int(BYTE_IDS[b]) for b in word.encode())
    while pairs := [p for p in pairwise(symbols) if p in rank]:
        best = min(pairs, key=rank.__getitem__)
        symbols = merge(symbols, best, 256 + rank[best])
    return list(symbols)


def test_words_of_every_length_equal_the_definition():
    tokenizer = ByteBPE(vocab_size=600).train(_probes.corpus(0))
    rng = random.Random(0)
    for n in [*range(1, 80), 200, 1000]:
        for alphabet in ("etaoinshr", "a", "ab"):
            word = "".join(rng.choices(alphabet, k=n))
            expected = naive_ids(tokenizer.merges.tolist(), word)
            assert tokenizer.encode(word).tolist() == expected


@pytest.mark.parametrize("seed", range(20))
def test_merges_no_training_would_give_equal_the_definition(seed):
    rng = random.Random(seed)
    ids = [int(BYTE_IDS[b]) for b in b"ab"]
    merges = []
    for new in range(256, 286):  # some spell the same text, or repeat a pair
        merges.append(rng.choices(ids[-12:], k=2))
        ids.append(new)
    tokenizer = ByteMergeTokenizer.from_state(ByteBPE(), {"merges": merges})
    for n in range(1, 300, 7):
        word = "".join(rng.choices("ab", k=n))
        assert tokenizer.encode(word).tolist() == naive_ids(merges, word)


def test_a_megabyte_without_a_space_equals_tiktoken():
    pytest.importorskip("tiktoken")
    from impls.tokenizers.peers.tiktoken import TiktokenPeer

    tokenizer = ByteBPE(vocab_size=4096).train(_probes.corpus(0))
    peer = TiktokenPeer().adopt(tokenizer)
    english = "".join(c for text in _probes.corpus(1) for c in text if c.isalpha())
    for text in (_probes.texts(seed=0, size=_probes.LONG)[-1], english, "a" * 100_000):
        np.testing.assert_array_equal(tokenizer.encode(text), peer.encode(text))


def test_agreement_with_a_peer_counts_every_text():
    pytest.importorskip("tiktoken")
    from impls.tokenizers.peers.tiktoken import TiktokenPeer

    found = agreement(ByteBPE(), TiktokenPeer(), seed=1, size=10_000)
    n = len(_probes.texts(1, 10_000))
    assert found == {"compared": n, "agreeing": n, "max_error": 0.0}


def test_any_bytes_come_back():
    tokenizer = ByteBPE(vocab_size=600).train(_probes.corpus(0))
    data = random.Random(0).randbytes(20_000) + b"\xf0\x9f\x98" + b"\xed\xa0\x80"
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


def test_a_full_cache_changes_nothing(monkeypatch):
    monkeypatch.setattr("impls.tokenizers._merges.CACHE_SLOTS", 1 << 6)
    monkeypatch.setattr("impls.tokenizers._merges.CACHE_POOL", 1 << 9)
    tokenizer = ByteBPE(vocab_size=600).train(_probes.corpus(0))
    monkeypatch.undo()
    roomy = ByteMergeTokenizer.from_state(tokenizer.recipe, tokenizer.state())
    texts = _probes.texts(seed=5, size=50_000)
    np.testing.assert_array_equal(tokenizer.encode_batch(texts).ids, roomy.encode_batch(texts).ids)


def test_the_printable_characters_of_bytes_are_a_bijection():
    assert len(set(CHARACTERS.values())) == 256
    assert all(c.isprintable() and not c.isspace() for c in CHARACTERS.values())
    assert CHARACTERS[32] == "Ġ"
    assert CHARACTERS[10] == "Ċ"


def test_ranks_give_the_merges_back():
    tokenizer = ByteBPE(vocab_size=2000).train(_probes.corpus(0))
    ranks = list(tokenizer.to_tiktoken())
    np.testing.assert_array_equal(merges_of_ranks(ranks), tokenizer.merges)
    with pytest.raises(ValueError, match="not a merge of two"):
        merges_of_ranks([*ranks[:256], b"abc"])


def test_a_merge_of_an_id_that_is_made_later_is_refused():
    with pytest.raises(ValueError, match="later or never"):
        ByteMergeTokenizer.from_state(ByteBPE(), {"merges": [[0, 256]]})


def test_the_hugging_face_file_is_json_with_our_ids():
    tokenizer = ByteBPE(vocab_size=300, special_tokens=("<|end|>",)).train(
        ["low lower lowest " * 9]
    )
    document = json.loads(tokenizer.to_hf_json())
    assert document["added_tokens"][0]["id"] == tokenizer.vocab_size - 1
    assert len(document["model"]["merges"]) == len(tokenizer.merges)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 255}, "255"),
        ({"vocab_size": 256, "special_tokens": ("a",)}, "257"),
        ({"min_frequency": 0}, "min_frequency"),
        ({"special_tokens": ("a", "a")}, "distinct"),
    ],
)
def test_impossible_recipes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ByteBPE(**changes)


def test_every_entry_into_compiled_code_has_one_specialisation():
    made = ByteBPE(vocab_size=300, tie_rule="greatest_text").train(["some text"])
    made.encode_batch(["text", "ſome"])
    made.encode_bytes(b"\xff")
    entries = (
        bpe_encode.encode,
        bpe_segment.enter_merges,
        bpe_train.learn,
        scan.spans,
        words.count,
    )
    assert [len(kernel.signatures) for kernel in entries] == [1] * len(entries)
