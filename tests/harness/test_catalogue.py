"""Names follow from where files lie; patterns choose among them; nothing is imported to list."""

import importlib
import sys
from fractions import Fraction

import pytest

from harness import catalogue
from harness.cli import main
from harness.errors import UsageError

TEN = (
    "bpe", "bpe_dropout", "byte_bpe", "bytes", "char", "sentencepiece", "superbpe", "unigram",
    "word", "wordpiece",
)  # fmt: skip


def test_a_name_is_the_path_of_its_file():
    for name, source in (catalogue.techniques() | catalogue.peers()).items():
        assert source.path.as_posix().endswith(f"impls/{name}.py")
        assert source.module == f"impls.{name.replace('/', '.')}"


def test_private_files_interfaces_and_kernels_are_no_techniques():
    for name in (*catalogue.techniques(), *catalogue.peers()):
        _family, *middle, slug = name.split("/")
        assert middle in ([], ["peers"])
        assert not slug.startswith("_")
        assert slug != "interface"


def test_the_ten_tokenizers_are_found_in_order():
    names = [name for name in catalogue.techniques() if name.startswith("tokenizers/")]
    assert names == [f"tokenizers/{slug}" for slug in TEN]


def test_suites_are_named_by_their_files():
    assert {"parity", "tokenization", "tokenizer_throughput"} <= set(catalogue.suites())
    assert not any(name.startswith("_") for name in catalogue.suites())


@pytest.mark.parametrize(
    ("name", "pattern", "matches"),
    [
        ("tokenizers/bpe", "tokenizers/*", True),
        ("tokenizers/peers/tiktoken", "tokenizers/*", False),
        ("tokenizers/peers/tiktoken", "tokenizers/*/*", True),
        ("tokenizers/peers/tiktoken", "*/peers/*", True),
        ("tokenizers/bpe", "*", False),
        ("tokenizers/bpe", "*/bpe", True),
        ("tokenizers/bpe_dropout", "tokenizers/bpe", False),
        ("tokenizers/bpe_dropout", "tokenizers/bpe*", True),
        ("tokenizers/bpe", "tokenizers/b?e", True),
        ("tokenizers/bpe", "Tokenizers/BPE", False),
    ],
)
def test_a_star_does_not_cross_a_slash(name, pattern, matches):
    assert catalogue.glob(name, pattern) is matches


def test_a_pattern_with_an_exclamation_mark_takes_away():
    whole = catalogue.match(["tokenizers/*"])
    assert catalogue.match(["tokenizers/*", "!tokenizers/b*"]) == tuple(
        name for name in whole if not name.startswith("tokenizers/b")
    )


def test_a_later_pattern_brings_back_what_an_earlier_took():
    patterns = ["tokenizers/*", "!tokenizers/b*", "tokenizers/bpe"]
    assert "tokenizers/bpe" in catalogue.match(patterns)
    assert "tokenizers/byte_bpe" not in catalogue.match(patterns)


def test_matches_come_once_and_in_catalogue_order():
    assert catalogue.match(["tokenizers/word", "tokenizers/bpe", "tokenizers/w*"]) == (
        "tokenizers/bpe",
        "tokenizers/word",
        "tokenizers/wordpiece",
    )


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("tokenizers/bpee", "did you mean 'tokenizers/bpe'"),
        ("tokenizer/*", "'tokenizers/*'"),
        ("!tokenizers/wordpeice", "'tokenizers/wordpiece'"),
    ],
)
def test_a_pattern_without_a_match_is_refused_with_near_misses(pattern, hint):
    with pytest.raises(UsageError) as refusal:
        catalogue.match(["tokenizers/*", pattern])
    assert hint in str(refusal.value)
    assert pattern.removeprefix("!") in str(refusal.value)


def test_unknown_names_are_refused_with_near_misses():
    with pytest.raises(UsageError, match=r"'tokenizers/bite_bpe'; did you .*'tokenizers/byte_bpe'"):
        catalogue.source("tokenizers/bite_bpe")
    with pytest.raises(UsageError, match=r"no suite is called 'parrity'; did you mean 'parity'"):
        catalogue.suite_source("parrity")
    with pytest.raises(UsageError, match="fractions is not in the catalogue"):
        catalogue.name_of(Fraction(1))


def test_a_class_comes_from_its_family_package_on_demand():
    import impls.tokenizers
    from impls.tokenizers import ByteBPE

    assert ByteBPE is catalogue.load("tokenizers/byte_bpe")
    assert catalogue.name_of(ByteBPE) == catalogue.name_of(ByteBPE()) == "tokenizers/byte_bpe"
    assert {"ByteBPE", "BPE", "WordPiece", "Unigram"} <= set(dir(impls.tokenizers))
    with pytest.raises(AttributeError, match="NoSuchThing"):
        _ = impls.tokenizers.NoSuchThing
    with pytest.raises(ImportError, match="NoSuchThing"):
        from impls.tokenizers import NoSuchThing  # noqa: F401


def test_peers_know_whose_work_they_repeat():
    assert "tokenizers/peers/tiktoken" in catalogue.peers_of("tokenizers/byte_bpe")
    for peer in catalogue.peers():
        for name in catalogue.card(peer).peer_of:
            assert peer in catalogue.peers_of(name)


def test_missing_packages_are_named(plugin):
    assert catalogue.missing_packages("trial/behave") == ()
    assert catalogue.missing_packages("trial/absent") == ("package_that_does_not_exist",)


def test_third_party_names_join_the_catalogue_without_being_imported(plugin):
    assert {"trial/behave", "trial/absent"} <= set(catalogue.techniques())
    assert {"trial", "trial_timed"} <= set(catalogue.suites())
    assert "trial" in catalogue.families()
    assert catalogue.card("trial/absent").cls == "Absent"
    assert catalogue.suite("trial_timed").timing
    assert catalogue.match(["trial/*"]) == ("trial/absent", "trial/behave")
    assert "llmatrix_trial.absent" not in sys.modules
    assert "llmatrix_trial.trial" not in sys.modules


def test_a_third_party_technique_is_loaded_by_name(plugin):
    behave = catalogue.load("trial/behave")
    assert behave is importlib.import_module("llmatrix_trial.behave").Behave
    assert catalogue.name_of(behave()) == "trial/behave"


@pytest.fixture
def distribution(tmp_path, monkeypatch, forget):
    """Writes files and the entry points of one more distribution, then forgets what was read."""

    def write(entry_points, **files):
        folder = tmp_path / "llmatrix_other-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(entry_points)
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        forget()

    return write


CARD = """
CARD = Card(
    cls="Other", title="T", paper="folklore", year=2000, summary="S."
)
"""


def test_a_third_party_technique_may_be_one_file(distribution):
    distribution("[llmatrix.techniques]\nother/one = llmatrix_other\n", llmatrix_other=CARD)
    assert catalogue.card("other/one").cls == "Other"


def test_an_entry_point_without_a_module_is_refused_by_name(distribution):
    distribution("[llmatrix.techniques]\nother/gone = llmatrix_gone.technique\n")
    with pytest.raises(UsageError, match=r"other/gone = llmatrix_gone.technique of other names no"):
        catalogue.techniques()


def test_a_third_party_does_not_take_the_name_of_ours(distribution):
    distribution("[llmatrix.techniques]\ntokenizers/bpe = llmatrix_other\n", llmatrix_other=CARD)
    with pytest.raises(UsageError, match=r"tokenizers/bpe = llmatrix_other of other takes a name"):
        catalogue.techniques()


def test_a_broken_header_of_a_third_party_is_one_message(distribution, capsys):
    text = CARD.replace("2000", "this_year()")
    distribution("[llmatrix.techniques]\nother/bad = llmatrix_other\n", llmatrix_other=text)
    assert main(["list", "techniques"]) == 2
    captured = capsys.readouterr()
    assert "llmatrix_other.py:2: CARD must be Card(...) of literals" in captured.err
    assert captured.err.count("\n") == 1


def test_without_the_distribution_its_names_are_gone():
    assert not catalogue.known("trial/behave")
    assert "trial" not in catalogue.suites()
