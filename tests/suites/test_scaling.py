import pytest

from suites._scaling import crossover, slope


def test_a_power_law_has_its_exponent_as_slope():
    lengths = [128, 256, 512]
    assert slope(lengths, [n**1.7 for n in lengths]) == pytest.approx(1.7)


def test_lines_cross_where_they_cross():
    lengths = [64, 128, 256, 512]
    assert crossover(lengths, [200 * n for n in lengths], [n**2 for n in lengths]) == (
        pytest.approx(200)
    )


def test_without_a_crossing_the_answer_is_an_end_or_none():
    lengths = [64, 128]
    assert crossover(lengths, [1, 1], [2, 2]) == 64
    assert crossover(lengths, [2, 2], [1, 1]) is None


def test_only_the_last_crossing_counts():
    assert 128 < crossover([64, 128, 256], [1, 3, 3], [2, 2, 4]) < 256
