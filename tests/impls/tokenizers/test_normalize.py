"""Normalizers against Unicode's own definition and Hugging Face's BertNormalizer."""

import random
import unicodedata

import numpy as np
import pytest

from impls.tokenizers._bert import CodeTable
from impls.tokenizers._normalize import is_punctuation, normalize, require_normalizer


def random_text(seed: int, alphabet: list[str], size: int = 400) -> str:
    rng = random.Random(seed)
    return "".join(rng.choice(alphabet) for _ in range(size))


def test_named_forms_are_unicode_forms():
    text = "e\u0301 \ufb01 \u2460 \uac00 \u212b"
    assert normalize("none", text) == text
    assert normalize("nfc", text) == unicodedata.normalize("NFC", text)
    assert normalize("nfkc", text) == unicodedata.normalize("NFKC", text)


def test_unknown_normalizer_is_refused_by_name():
    with pytest.raises(ValueError, match="'NFD'"):
        require_normalizer("NFD")


def test_bert_strips_accents_lowers_and_spaces_ideographs():
    assert normalize("bert", "Él\u0000ève\t\u4e2dA\u03a3") == "eleve  \u4e2d a\u03c3"


def test_bert_equals_hugging_face():
    normalizers = pytest.importorskip("tokenizers.normalizers")
    library = normalizers.BertNormalizer()
    characters = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    agreed = [c for c in characters if library.normalize_str(c) == normalize("bert", c)]
    if unicodedata.unidata_version == "14.0.0":
        assigned = {c for c in characters if unicodedata.category(c) != "Cn"}
        assert assigned.difference(agreed) == {"\U00011938"}  # decomposes since Unicode 13
    assert agreed[:0x7FD] == characters[:0x7FD]
    for seed in range(50):
        text = random_text(seed, agreed)
        assert normalize("bert", text) == library.normalize_str(text)


def test_bert_punctuation_equals_hugging_face():
    pre_tokenizers = pytest.importorskip("tokenizers.pre_tokenizers")
    library = pre_tokenizers.BertPreTokenizer()
    for code in range(0x20000):
        if not 0xD800 <= code < 0xE000:
            splits = len(library.pre_tokenize_str(f"x{chr(code)}x")) == 3
            assert splits == is_punctuation(chr(code)), hex(code)


@pytest.mark.parametrize("uncased", [True, False])
def test_pages_filled_at_once_equal_pages_filled_one_by_one(
    uncased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def filled() -> CodeTable:
        table = CodeTable(uncased=uncased)
        for page in range(0, 0x110000, 11 * 256):
            table.fill(page)
        return table

    at_once = filled()
    monkeypatch.setattr(CodeTable, "_fill_alike", lambda *_: False)
    one_by_one = filled()
    np.testing.assert_array_equal(at_once.entries, one_by_one.entries)
    np.testing.assert_array_equal(at_once.sequences, one_by_one.sequences)
