import pytest

from suites.data import pairs
from suites.data.pairs import SHORTEST, docstring_pairs


@pytest.fixture(scope="module")
def many():
    return docstring_pairs(200)


def test_a_pair_is_a_first_sentence_and_what_follows(monkeypatch):
    source = (
        'def read(path):\n    """Read the whole file as text. The file is closed'
        " afterwards, whatever happens, and what was read is given back to the caller.\n\n"
        '    Fails if the path names no file."""\n'
        'def short():\n    """Too short."""\n'
    )
    monkeypatch.setattr(pairs, "library", lambda: iter([("io.py", source)]))
    (pair,) = docstring_pairs(1)
    assert pair.name == "io.py:read"
    assert pair.query == "Read the whole file as text."
    assert pair.passage.startswith("The file is closed afterwards")
    assert pair.passage.endswith("Fails if the path names no file.")


def test_no_query_and_no_passage_comes_twice(many):
    assert len({p.query for p in many}) == len({p.passage for p in many}) == len(many)
    assert min(len(p.passage) for p in many) >= SHORTEST


def test_fewer_pairs_are_the_first_of_more(many):
    assert docstring_pairs(20) == many[:20]


def test_more_than_there_are_is_refused(monkeypatch):
    monkeypatch.setattr(pairs, "library", lambda: iter([]))
    with pytest.raises(ValueError, match="has 0 pairs, fewer than 3"):
        docstring_pairs(3)
