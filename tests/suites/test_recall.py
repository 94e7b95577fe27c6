import numpy as np
import pytest

from suites.data.recall import PAIR, Recall

RECALL = Recall(260)


def windows(n=6, length=64):
    return np.random.default_rng(1).integers(0, 260, (n, length))


def pairs(row):
    """(key, value) of every pair in a window, in order."""
    return [(row[n + 1], row[n + 2]) for n in np.flatnonzero(row[:-2] == RECALL.mark)]


def test_keys_values_and_mark_are_ids_of_their_own():
    ids = {*RECALL.keys.tolist(), *RECALL.values.tolist(), RECALL.mark}
    assert len(ids) == 26 + 26 + 1
    assert max(ids) == RECALL.mark == 260


def test_a_key_has_one_value_in_a_window_and_comes_again():
    planted = RECALL.plant(windows(), 1.0, np.random.default_rng(0))
    for row in planted:
        found = pairs(row)
        assert len(found) > len(dict(found)) > 0
        assert set(found) == set(dict(found).items())


def test_the_share_of_planted_windows_is_the_asked_one_and_the_input_is_not_written():
    before = windows(10)
    kept = before.copy()
    planted = RECALL.plant(before, 0.3, np.random.default_rng(0))
    assert (planted != kept).any(1).sum() == 3
    np.testing.assert_array_equal(before, kept)


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_a_test_window_holds_one_pair_at_its_depth_and_ends_with_the_question(depth):
    asked, answers = RECALL.ask(windows(), depth, np.random.default_rng(0))
    for row, answer in zip(asked, answers, strict=True):
        place = round(depth * (64 - PAIR - 2))
        assert row[place : place + 3].tolist() == [RECALL.mark, row[-1], answer]
        assert row[-2] == RECALL.mark
        assert answer in RECALL.values


def test_a_vocabulary_without_room_for_symbols_is_refused():
    with pytest.raises(ValueError, match=r"recall needs 52 ids.*has 40.*recall_share=0"):
        Recall(40).plant(np.zeros((2, 32), np.int64), 1.0, np.random.default_rng(0))
