import sys
from types import SimpleNamespace

import pytest

from harness.errors import UsageError
from suites.data import hub
from suites.data.hub import Address, parse, read_hub


def install(monkeypatch, load_dataset) -> None:
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))


def test_an_address_fills_in_what_is_left_out():
    assert parse("org/set") == Address("org/set", None, "train", "text")
    assert parse("org/set:en::content") == Address("org/set", "en", "train", "content")


@pytest.mark.parametrize("address", ["", ":en", "a:b:c:d:e"])
def test_a_bad_address_is_refused(address):
    with pytest.raises(UsageError, match="write hf:NAME"):
        parse(address)


def test_rows_become_documents(monkeypatch):
    def load_dataset(name, config, *, split, streaming):
        assert (name, config, split, streaming) == ("org/set", "en", "test", True)
        return [{"body": "one"}, {"body": " "}, {"body": "two"}]

    install(monkeypatch, load_dataset)
    documents = read_hub("org/set:en:test:body")
    assert [d.text for d in documents] == ["one", "two"]
    assert len({d.name for d in documents}) == 2


def test_no_more_is_read_than_the_limit(monkeypatch):
    monkeypatch.setattr(hub, "LIMIT_BYTES", 10)
    install(monkeypatch, lambda *_, **__: ({"text": "four"} for _ in range(10**9)))
    assert len(read_hub("org/set")) == 2


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"pip install -e '\.\[hub\]'"):
        read_hub("org/set")


@pytest.mark.parametrize("error", [ConnectionError("offline"), ValueError("Bad split: dev")])
def test_without_hub_or_split_the_way_out_is_named(monkeypatch, error):
    def load_dataset(*_, **__):
        raise error

    install(monkeypatch, load_dataset)
    with pytest.raises(UsageError, match=f"org/set cannot be read: {error}.*embedded corpus"):
        read_hub("org/set")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"body": "x", "n": 1}], "no column 'text' but body, n"),
        ([{"text": "x"}, {"text": None}], "row 1: 'text' is no string but None"),
        ([], "holds no text in column 'text'"),
    ],
)
def test_rows_without_text_are_refused(monkeypatch, rows, message):
    install(monkeypatch, lambda *_, **__: rows)
    with pytest.raises(UsageError, match=message):
        read_hub("org/set")
