"""Every technique that names a peer agrees with it."""

from dataclasses import fields

import pytest
import torch

from harness import catalogue
from impls.attention.interface import agreement

SMALL = {"window": 48, "stride": 16, "expressivity": 3, "block": 16, "sinks": 3}
WITH_PEER = tuple(
    name
    for name in catalogue.techniques()
    if name.startswith("attention/") and "/peers/" in catalogue.card(name).oracle
)
PEERS = tuple(name for name in catalogue.peers() if name.startswith("attention/"))


@pytest.mark.parametrize("name", WITH_PEER)
def test_agrees_with_its_peer(name):
    cls = catalogue.load(name)
    technique = cls(**{f.name: SMALL[f.name] for f in fields(cls) if f.name in SMALL})
    found = agreement(technique, catalogue.load(catalogue.card(name).oracle)(), seed=0, size=2000)
    assert found["agreeing"] == found["compared"] >= 2000
    assert 0 < found["max_error"] < 1e-5


def test_another_pattern_does_not_agree():
    window, strided = (
        catalogue.load("attention/sliding_window"),
        catalogue.load("attention/strided"),
    )
    peer = catalogue.load("attention/peers/sdpa")()

    class Mistaken:
        adopt = staticmethod(lambda technique: peer.adopt(strided(stride=4, expressivity=1)))

    found = agreement(window(window=4), Mistaken(), seed=0, size=2000)
    assert found["agreeing"] < found["compared"] / 2


@pytest.mark.parametrize("name", PEERS)
def test_peers_say_what_they_run(name):
    q = torch.randn(1, 2, 8, 16)
    assert catalogue.load(name)().backend(q, q, q)


def test_sdpa_attends_by_itself():
    q, k = torch.randn(1, 4, 5, 8), torch.randn(1, 2, 9, 8)
    full = catalogue.load("attention/full")()
    sdpa = catalogue.load("attention/peers/sdpa")()
    torch.testing.assert_close(sdpa.attend(q, k, k), full.attend(q, k, k))
