"""Headers are literals, read without importing the file they stand in."""

import sys

import pytest

from harness.card import Card, HeaderError, Metric, Suite, read_card, read_suite

WHOLE = '''"""A technique."""

import a_package_that_does_not_exist

from harness.card import Card

CARD = Card(
    cls="Thing",
    title="Thing (of 'quotes')",
    paper="arXiv:2000.00001",
    year=2000,
    summary="One. "
    "Two.",
    packages=("numpy", "torch"),
    exact=False,
)


class Thing: ...
'''


def written(tmp_path, text):
    path = tmp_path / "technique.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_card_is_read_without_importing_its_file(tmp_path):
    card = read_card(written(tmp_path, WHOLE))
    assert card == Card(
        cls="Thing",
        title="Thing (of 'quotes')",
        paper="arXiv:2000.00001",
        year=2000,
        summary="One. Two.",
        packages=("numpy", "torch"),
        exact=False,
    )
    assert "a_package_that_does_not_exist" not in sys.modules


def test_a_suite_nests_its_metrics(tmp_path):
    text = """
SUITE = Suite(
    title="T",
    question="Q?",
    families=("*",),
    baseline="",
    metrics=(
        Metric(name="speed", unit="MB/s", better="higher", kind="timing"),
        Metric(name="size", unit="B", better="lower", kind="memory", summary="On disk."),
    ),
    timing=True,
)
"""
    assert read_suite(written(tmp_path, text)) == Suite(
        title="T",
        question="Q?",
        families=("*",),
        baseline="",
        metrics=(
            Metric(name="speed", unit="MB/s", better="higher", kind="timing"),
            Metric(name="size", unit="B", better="lower", kind="memory", summary="On disk."),
        ),
        timing=True,
    )


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('year=2000', 'year=1999 + int("1")', "technique.py:7: CARD must be Card"),
        ('cls="Thing"', "cls=Thing.__name__", "technique.py:7: CARD must be Card"),
        ('    year=2000,\n', "", "year"),
        ('year=2000', 'year=2000, colour="red"', "colour"),
        ("CARD = Card(", "CARD = dict, (", "CARD"),
        ("CARD = Card(", "CARD = Card((", "CARD does not parse"),
        ("CARD = Card(", "card = Card(", "no 'CARD = Card"),
        ("CARD = Card(", "if True: CARD = Card(", "no 'CARD = Card"),
    ],
)  # fmt: skip
def test_what_is_no_literal_header_is_refused_with_its_place(tmp_path, before, after, told):
    assert before in WHOLE
    path = written(tmp_path, WHOLE.replace(before, after))
    with pytest.raises(HeaderError, match=told) as refusal:
        read_card(path)
    assert str(path) in str(refusal.value)


def test_a_header_never_runs_code(tmp_path):
    mark = tmp_path / "ran"
    call = f"open({str(mark)!r}, 'w').name"
    with pytest.raises(HeaderError):
        read_card(written(tmp_path, WHOLE.replace('"Thing"', call)))
    assert not mark.exists()
