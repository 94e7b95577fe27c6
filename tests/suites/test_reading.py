from math import log

import numpy as np
import pytest
import torch

from suites.data.reading import Exam, depths, flat, nats, recall_accuracy
from suites.data.recall import Recall

V = 260
RECALL = Recall(V)


def exam(**changes):
    made = {
        "tokens": np.random.default_rng(0).integers(0, V, 4000),
        "token_bytes": np.ones(V, np.int64),
        "longest": 256,
        "n_windows": 12,
        "tail": 8,
    }
    return Exam(**{**made, **changes})


def even(ids):
    return torch.zeros(*ids.shape, V + 1)


def test_even_odds_cost_the_logarithm_of_the_vocabulary():
    losses, windows = exam().losses(even, 64)
    assert losses.shape == (12, 8)
    bits = exam().bits_per_byte(losses, windows)
    assert bits == pytest.approx([log(V + 1) / log(2)] * 12, rel=1e-6)


def test_bits_are_over_the_bytes_the_scored_tokens_spell():
    spelled = np.where(np.arange(V) % 2, 3, 1)
    told = exam(token_bytes=spelled)
    losses, windows = told.losses(even, 64)
    n_bytes = spelled[windows[:, -8:]].sum(1)
    assert told.bits_per_byte(losses, windows) == pytest.approx(
        (8 * log(V + 1) / log(2) / n_bytes).tolist(), rel=1e-6
    )


def test_windows_of_every_length_end_with_the_same_tokens():
    short, long = exam().windows(64), exam().windows(256)
    assert short.shape == (12, 65)
    np.testing.assert_array_equal(short, long[:, -65:])


def test_a_window_s_targets_are_its_inputs_one_on():
    seen = []

    def reader(ids):
        seen.append(ids)
        return even(ids)

    _, windows = exam().losses(reader, 64)
    np.testing.assert_array_equal(torch.cat(seen).numpy(), windows[:, :-1])


def test_losses_are_those_of_cross_entropy():
    logits, targets = torch.randn(3, 5, V), torch.randint(V, (3, 5))
    expected = torch.nn.functional.cross_entropy(logits.mT, targets, reduction="none")
    assert torch.allclose(nats(logits, targets), expected)


def looks_up(ids):
    """Logits of a reader that finds the key's first place and tells what follows it."""
    logits = torch.zeros(*ids.shape, V + 1)
    for row, out in zip(ids, logits, strict=True):
        marks = (row[:-1] == RECALL.mark).nonzero().flatten()
        place = next(int(n) for n in marks if row[n + 1] == row[-1])
        out[-1, row[place + 2]] = 1
    return logits


def test_a_reader_that_looks_up_recalls_all_and_a_blind_one_hardly_any():
    found = recall_accuracy(looks_up, exam(), RECALL, 64, seed=0)
    assert set(flat(found)) == {1.0}
    assert len(flat(found)) == 5 * 12
    blind = recall_accuracy(even, exam(n_windows=96), RECALL, 64, seed=0)
    # One of 26 by chance: of 480 trials 18 on average, 4 standard deviations are 17.
    assert sum(flat(blind)) < 36
    assert set(depths(blind)) == {"0.0", "0.25", "0.5", "0.75", "1.0"}


def test_too_few_held_out_tokens_are_refused():
    with pytest.raises(ValueError, match="100 held-out tokens are too few for 12 windows of 256"):
        exam(tokens=np.zeros(100, np.int64))
