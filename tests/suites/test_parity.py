from dataclasses import replace

import pytest

from harness import catalogue
from harness.worker import _checked
from impls.tokenizers import interface
from suites import parity
from suites.parity import Setting, measure


def test_agreement_is_the_share_that_agrees(fakes, instruments, monkeypatch):
    asked = {}

    def agreement(technique, oracle, *, seed, size):
        asked.update(technique=technique, oracle=type(oracle).__name__, seed=seed, size=size)
        return {"compared": 8, "agreeing": 6, "max_error": 0.25}

    monkeypatch.setattr(interface, "agreement", agreement)
    technique = fakes("tokenizers/fake_chars")()
    result = _checked(measure(technique, Setting(size=8, seed=3), instruments), parity.SUITE)
    assert result == {"agreement": 0.75, "compared": 8, "max_error": 0.25}
    assert asked == {"technique": technique, "oracle": "FakePeer", "seed": 3, "size": 8}
    assert instruments.notes["oracle"] == "tokenizers/peers/fake_peer"


def test_only_techniques_with_a_peer_as_oracle_apply(fakes, instruments):
    peer = fakes("tokenizers/peers/fake_peer")
    assert parity.applies(catalogue.card("tokenizers/fake_chars")) == ""
    assert "no peer" in parity.applies(catalogue.card("tokenizers/peers/fake_peer"))
    alone = replace(instruments, technique="tokenizers/peers/fake_peer")
    with pytest.raises(ValueError, match="oracle '', which is no peer"):
        measure(peer(), Setting(), alone)


def test_a_bad_setting_is_refused():
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        Setting(size=0)
