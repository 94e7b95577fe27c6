"""ALiBi: nothing is changed, and only where there is something to leave."""

import pytest
import torch

from impls.context import ALiBi
from impls.positions import ALiBi as LinearBiases


@torch.no_grad()
def test_a_model_trained_with_it_reads_on_unchanged(decoder, ids):
    model = decoder(LinearBiases())
    plain = model(ids())
    with ALiBi().applied(model, target_len=48) as extended:
        assert extended is model
        assert torch.equal(model(ids()), plain)


def test_another_model_is_refused_with_the_remedy(decoder):
    with (
        pytest.raises(ValueError, match="train it with positions/alibi"),
        ALiBi().applied(decoder(), target_len=48),
    ):
        pass


@torch.no_grad()
def test_a_bloom_is_a_model_trained_with_it():
    transformers = pytest.importorskip("transformers")
    config = transformers.BloomConfig(vocab_size=32, hidden_size=16, n_layer=1, n_head=2)
    model = transformers.BloomForCausalLM(config)
    with ALiBi().applied(model, target_len=48) as extended:
        assert extended is model
