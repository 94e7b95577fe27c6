"""The digest follows imports, so an edit reaches exactly the cells whose result it may change."""

import sys

import pytest

from harness import catalogue
from harness.code import code_digest


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Two techniques of a third party, of which one imports shared mathematics."""
    folder = tmp_path / "llmatrix_paper"
    folder.mkdir()
    sources = {
        "__init__": "from ._deeper import X\n",
        "_shared": "from llmatrix_paper import _deeper\n",
        "_deeper": "X = 1\n",
        "user": "from llmatrix_paper._shared import _deeper\nfrom harness.card import Card\n",
        "relative": "from . import _shared\nfrom ._shared import _deeper\n",
        "loner": "import math\nimport a_package_that_does_not_exist\n",
    }
    for name, text in sources.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def digests(forget):
    forget()
    names = ("user", "relative", "loner")
    found = {name: code_digest([f"llmatrix_paper.{name}"]) for name in names}
    return {**found, "package": code_digest(["llmatrix_paper"])}


@pytest.mark.parametrize(
    ("edited", "changed"),
    [
        ("user", {"user"}),
        ("loner", {"loner"}),
        ("_shared", {"user", "relative"}),
        ("_deeper", {"user", "relative", "package"}),
    ],
)
def test_an_edit_changes_the_digests_of_those_that_import_it(package, forget, edited, changed):
    before = digests(forget)
    path = package / f"{edited}.py"
    path.write_text(path.read_text() + "# edited\n")
    after = digests(forget)
    assert {name for name in before if before[name] != after[name]} == changed


def test_techniques_that_differ_have_different_digests(package, forget):
    assert len(set(digests(forget).values())) == 4


def test_the_order_of_modules_does_not_matter():
    modules = ["impls.tokenizers.bpe", "suites.tokenization"]
    assert code_digest(modules) == code_digest(reversed(modules))


def test_nothing_is_imported(package, forget):
    digests(forget)
    assert not any(name.startswith("llmatrix_paper") for name in sys.modules)


def test_two_tokenizers_of_the_house_share_a_suite_but_not_a_digest():
    found = {
        name: code_digest([source.module, "suites.tokenization"])
        for name, source in catalogue.techniques().items()
    }
    assert len(set(found.values())) == len(found)


def test_a_digest_is_sixteen_hexadecimal_digits():
    digest = code_digest(["suites.parity"])
    assert len(digest) == 16
    assert int(digest, 16) >= 0
