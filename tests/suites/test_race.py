import pytest

from suites._race import in_turn, mb_per_s, ours_over_peer


def test_works_come_one_a_call():
    work = in_turn(lambda n=n: n for n in range(3))
    assert [work(), work(), work()] == [0, 1, 2]
    with pytest.raises(StopIteration):
        work()


def test_speed_counts_utf8_bytes_of_each_round():
    assert mb_per_s([["é" * 500_000], ["a" * 250_000] * 2], [0.5, 0.25]) == [2, 2]


def test_twice_as_fast_as_the_peer_is_two():
    assert ours_over_peer([[1.0, 3.0], [0.5, 1.0]]) == [2, 3]
    assert ours_over_peer([[1.0]]) is None
