from dataclasses import replace
from math import log

import numpy as np
import pytest

from harness import catalogue
from harness.worker import _checked
from suites import tokenization
from suites.data import corpus
from suites.tokenization import Setting, language_costs, measure, renyi_efficiency, unknown_share

PARALLEL = {"en": ["ab", "c"], "xx": ["abc", "abc"], "yy": ["abcd", "é"]}


@pytest.fixture
def small_parallel(monkeypatch):
    monkeypatch.setattr(corpus, "parallel", lambda _: PARALLEL)


def test_even_use_has_efficiency_one():
    assert renyi_efficiency(np.full(7, 3)) == pytest.approx(1, abs=1e-12)


def test_one_token_alone_has_efficiency_zero():
    assert renyi_efficiency(np.array([0, 9, 0])) == 0


def test_k_of_v_tokens_used_evenly_have_efficiency_log_k_over_log_v():
    counts = np.array([5] * 4 + [0] * 12)
    assert renyi_efficiency(counts) == pytest.approx(log(4) / log(16), abs=1e-12)


def test_renyi_entropy_of_two_unequal_tokens():
    expected = log(0.75**2.5 + 0.25**2.5) / (1 - 2.5) / log(2)
    assert renyi_efficiency(np.array([30, 10])) == pytest.approx(expected, abs=1e-12)


def test_characters_are_counted_as_by_hand(fakes, instruments, corpus_file, small_parallel):
    data = corpus_file(["abcab"] * 1 + [f"{'ab ' * n}é" for n in range(1, 60)])
    technique = fakes("tokenizers/fake_chars")(vocab_size=4, extra="")  # unknown, " ", a, b
    result = measure(technique, Setting(data=data), instruments)
    documents = corpus.load(data, instruments, n_bytes=1_000_000).held_out_texts
    assert result["bytes_per_token"] == [len(d.encode()) / len(d) for d in documents]
    assert result["tokens_per_word"] == [len(d) / len(d.split()) for d in documents]
    characters = "".join(documents)
    unknown = sum(c not in " ab" for c in characters) / len(characters)
    assert result["unknown_rate"] == pytest.approx(unknown, abs=1e-12)
    assert result["vocabulary_use"] == 1
    assert result["round_trip_rate"] == np.mean([not set(d) - set(" ab") for d in documents])
    assert result["vocab_size"] == 4


def test_what_cannot_be_spelled_costs_no_language(fakes, instruments, corpus_file, small_parallel):
    data = corpus_file(["abc", "abc"])
    technique = fakes("tokenizers/fake_chars")()
    result = _checked(measure(technique, Setting(data=data), instruments), tokenization.SUITE)
    assert result["languages_spelled"] == 0.5
    assert result["language_cost"] == [2.0]
    assert result["worst_language_cost"] == 2
    assert instruments.notes["worst_language"] == "xx"


def test_without_english_there_is_no_cost(fakes, instruments, corpus_file, small_parallel):
    data = corpus_file(["xyz", "xyz"])
    result = measure(fakes("tokenizers/fake_chars")(), Setting(data=data), instruments)
    assert result["languages_spelled"] == 0
    assert result["language_cost"] is None
    assert result["worst_language_cost"] is None


def test_a_tokenizer_without_unknowns_spells_every_language(fakes):
    tokenizer = fakes("tokenizers/fake_chars")(extra="abcdé").train([])
    tokenizer.unk_id = None
    assert language_costs(tokenizer, PARALLEL) == {"xx": 6 / 3, "yy": 5 / 3}
    assert unknown_share(tokenizer, np.array([1, 1])) == 0


def test_the_corpus_stands_in_the_notes_and_training_is_shared(fakes, instruments):
    technique = fakes("tokenizers/fake_chars")()
    for _ in range(2):
        measure(technique, Setting(corpus_bytes=20_000), instruments)
    assert len(technique.trainings) == 1
    assert instruments.notes["corpus"]["data"] == "english"
    measure(replace(technique, vocab_size=50), Setting(corpus_bytes=20_000), instruments)
    assert technique.trainings[1:] == [50]


def test_peers_do_not_apply(fakes):
    fakes("tokenizers/fake_chars")
    assert tokenization.applies(catalogue.card("tokenizers/fake_chars")) == ""
    assert "parity" in tokenization.applies(catalogue.card("tokenizers/peers/fake_peer"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corpus_bytes": 9999}, "at least 10000, got 9999"),
        ({"data": "englisch"}, "did you mean 'english'"),
    ],
)
def test_a_bad_setting_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Setting(**options)


def test_a_byte_a_token_for_byte_level(instruments):
    pytest.importorskip("impls.tokenizers.bytes")
    instruments = replace(instruments, technique="tokenizers/bytes")
    technique = catalogue.load("tokenizers/bytes")()
    result = measure(technique, Setting(corpus_bytes=20_000), instruments)
    assert set(result["bytes_per_token"]) == {1.0}
    assert result["round_trip_rate"] == 1
    assert result["unknown_rate"] == 0
    assert result["languages_spelled"] == 1
