import numpy as np
import pytest

from harness import catalogue
from harness.instruments import Instruments
from harness.worker import _checked
from suites import perplexity
from suites.perplexity import Setting, measure

SMALL = Setting(
    steps=4, batch=4, train_len=16, tail=4, n_windows=3, corpus_bytes=60_000, recall_share=0.5
)


@pytest.mark.parametrize(
    "name", ["positions/rope", "positions/alibi", "attention/full", "context/nbce", "context/yarn"]
)
def test_every_kind_of_technique_is_read_at_every_length(cache, name):
    instruments = Instruments(artifacts=cache, technique=name)
    result = _checked(measure(catalogue.load(name)(), SMALL, instruments), perplexity.SUITE)
    assert all(len(result[f"bits_per_byte_{n}x"]) == 3 for n in (1, 2, 4, 8))
    assert all(len(result[f"recall_{n}x"]) == 15 for n in (1, 2, 4))
    # Four steps in, a byte costs about what an even guess costs.
    assert 4 < np.mean(result["bits_per_byte_1x"]) < 10
    assert set(instruments.notes["recall_by_depth"]) == {"1x", "2x", "4x"}


def test_one_pass_and_the_cache_agree_where_the_technique_says_so(cache):
    instruments = Instruments(artifacts=cache, technique="positions/rope")
    result = measure(catalogue.load("positions/rope")(), SMALL, instruments)
    # Logits of about 1 in float32, summed in another order.
    assert result["cached_gap_4x"] < 1e-4


def test_a_context_extension_shares_the_decoder_of_its_baseline(cache):
    first = Instruments(artifacts=cache, technique="positions/rope")
    measure(catalogue.load("positions/rope")(), SMALL, first)
    before = set((cache.folder / "decoder").iterdir())
    other = Instruments(artifacts=cache, technique="context/position_interpolation")
    measure(catalogue.load("context/position_interpolation")(), SMALL, other)
    assert set((cache.folder / "decoder").iterdir()) == before


def test_a_killed_training_goes_on_where_it_was(cache, monkeypatch):
    from impls.models.training import Training

    steps = []
    whole = Training._step

    def dies(self, *arguments):
        if len(steps) == 6 and not monkeypatched:
            monkeypatched.append(True)
            raise KeyboardInterrupt
        steps.append(arguments[-1])
        return whole(self, *arguments)

    monkeypatched = []
    monkeypatch.setattr(Training, "_step", dies)
    monkeypatch.setattr("suites.data.decoders.SAVE_EVERY", 4)
    setting = Setting(steps=8, batch=2, train_len=16, tail=4, n_windows=3, corpus_bytes=60_000)
    instruments = Instruments(artifacts=cache, technique="positions/nope")
    technique = catalogue.load("positions/nope")()
    with pytest.raises(KeyboardInterrupt):
        measure(technique, setting, instruments)
    measure(technique, setting, instruments)
    assert steps == [0, 1, 2, 3, 4, 5, 4, 5, 6, 7]


def test_a_shape_is_a_size_with_changes():
    shape = Setting(size="1m", n_layers=2, n_kv_heads=2).shape(vocab_size=300)
    assert (shape.d_model, shape.n_layers, shape.n_heads, shape.n_kv_heads) == (128, 2, 4, 2)
    assert (shape.vocab_size, shape.max_len) == (300, 8 * 64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "2m"}, "no decoder has size '2m'"),
        ({"tail": 65}, "tail must be from 1 to train_len 64, got 65"),
        ({"recall_share": 1.5}, "recall_share must be in"),
        ({"tokenizer": "tokenizers/byte"}, "no tokenizer is called 'tokenizers/byte'"),
        ({"d_model": 30}, "d_model 30 is no multiple of n_heads 4"),
        ({"train_len": 0}, "train_len must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
    ],
)
def test_a_bad_setting_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Setting(**changes)
