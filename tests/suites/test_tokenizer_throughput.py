from dataclasses import replace
from time import sleep

import numpy as np
import pytest

from harness.instruments import Instruments
from harness.worker import _checked
from impls.tokenizers.interface import NoExport
from suites import tokenizer_throughput
from suites.data.adversarial import hostile_texts, unbroken_text, unicode_text
from suites.tokenizer_throughput import Setting, measure

SMALL = Setting(corpus_bytes=20_000, adversarial_bytes=1000, rounds=3, slow_rounds=2)
PEER = "tokenizers/peers/fake_peer"


@pytest.fixture
def beside_peer(instruments: Instruments) -> Instruments:
    return replace(instruments, technique=PEER)


def test_a_technique_alone_has_speeds_and_no_ratios(fakes, instruments):
    technique = fakes("tokenizers/fake_chars")()
    result = _checked(measure(technique, SMALL, instruments), tokenizer_throughput.SUITE)
    samples = {name: len(value) for name, value in result.items() if isinstance(value, list)}
    assert samples == {
        "cold_mb_s": 3,
        "warm_mb_s": 3,
        "decode_mb_s": 3,
        "unbroken_mb_s": 2,
        "unicode_mb_s": 2,
        "adversarial_cost": 2,
        "train_mb_s": 2,
    }
    assert result["load_ms"] > 0
    assert {name for name, value in result.items() if value is None} == {
        "ids_agree",
        "ours_over_peer_cold",
        "ours_over_peer_warm",
        "ours_over_peer_train",
    }


def test_a_peer_runs_our_vocabulary_beside_us(fakes, beside_peer):
    peer = fakes(PEER)()
    result = _checked(measure(peer, SMALL, beside_peer), tokenizer_throughput.SUITE)
    ratios = [name for name in result if name.startswith("ours_over_peer")]
    assert {len(result[name]) for name in ratios} == {3, 2}
    assert all(ratio > 0 for name in ratios for ratio in result[name])
    # The fake gets the first and then every tenth document wrong.
    n = beside_peer.notes["corpus"]["held_out_documents"]
    assert result["ids_agree"] == pytest.approx(1 - -(-n // 10) / n, abs=1e-12)


def test_the_setting_sizes_the_vocabulary_a_peer_adopts(fakes, beside_peer):
    peer = fakes(PEER)()
    measure(peer, replace(SMALL, vocab_size=40), beside_peer)
    assert beside_peer.notes["vocab_size"] == 40
    assert beside_peer.notes["adopted"] is True
    assert beside_peer.notes["packages"] == {"numpy": np.__version__}


def test_a_library_without_a_trainer_has_no_training_speed(fakes, beside_peer):
    result = measure(fakes(PEER)(trains=False), SMALL, beside_peer)
    assert result["train_mb_s"] is None
    assert result["ours_over_peer_train"] is None


def test_a_library_that_cannot_adopt_runs_what_it_trained(fakes, beside_peer):
    result = measure(fakes(PEER)(adopts=False), SMALL, beside_peer)
    assert result["load_ms"] is None
    assert result["ids_agree"] is None
    assert beside_peer.notes["adopted"] is False
    assert len(result["ours_over_peer_cold"]) == SMALL.rounds
    with pytest.raises(NoExport, match="only runs what it trained"):
        measure(fakes(PEER)(adopts=False, trains=False), SMALL, beside_peer)


def test_each_cold_sample_meets_a_fresh_tokenizer_and_another_text(fakes, instruments, monkeypatch):
    chars = fakes("tokenizers/fake_chars")
    cls = chars.tokenizer_class
    calls, original = [], cls.encode_batch

    def spy(self, texts):
        calls.append((self, tuple(texts)))
        return original(self, texts)

    monkeypatch.setattr(cls, "encode_batch", spy)
    measure(chars(), SMALL, instruments)
    everything = max((texts for _, texts in calls), key=len)
    parts = [(who, texts) for who, texts in calls if 1 < len(texts) < len(everything)]
    assert len({id(who) for who, _ in parts}) == len(parts) == SMALL.rounds
    assert sorted(text for _, texts in parts for text in texts) == sorted(everything)


@pytest.mark.parametrize(
    "options", [{"corpus_bytes": 1}, {"adversarial_bytes": 1}, {"rounds": 0}, {"slow_rounds": 0}]
)
def test_a_bad_setting_is_refused(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name} must be at least .*, got {value}"):
        Setting(**options)


def test_adversarial_texts_are_reproducible_and_of_their_size():
    first, again = np.random.default_rng(1), np.random.default_rng(1)
    word = unbroken_text(first, 5000)
    assert word == unbroken_text(again, 5000)
    assert len(word) == 5000
    assert word.isalpha()
    assert word.islower()
    text = unicode_text(first, 5000)
    assert text == unicode_text(again, 5000)
    assert 4500 < len(text.encode()) <= 5000


def test_hostile_texts_have_the_size_asked_for_where_that_is_quick():
    words, scalars = hostile_texts(len, n_bytes=20_000, count=3, seed=0)
    assert [len(text) for text in words] == [20_000] * 3
    assert all(19_000 < len(text.encode()) <= 20_000 for text in scalars)
    assert len({*words, *scalars}) == 6


def test_hostile_texts_stay_small_where_time_would_explode():
    def quadratic(text: str) -> None:
        sleep((len(text.encode()) / 4000) ** 2 / 8)  # 4 kB take twice what allows 16 kB

    for texts in hostile_texts(quadratic, n_bytes=1_000_000, count=1, seed=0):
        assert 3900 < len(texts[0].encode()) <= 4000
