import random
import unicodedata

import pytest
import regex

from impls.tokenizers import _probes
from impls.tokenizers._patterns import PATTERNS, SPANS_PER_CALL, split, split_bytes

every_pattern = pytest.mark.parametrize("pattern", PATTERNS)


@every_pattern
def test_scanner_equals_the_expression_on_every_character(pattern):
    expression = regex.compile(PATTERNS[pattern])
    every = ((n, unicodedata.category(chr(n))) for n in range(0x110000))
    points = [
        chr(n) for n, c in every if c not in {"Cn", "Co", "Cs"} or (c != "Cs" and n % 61 == 0)
    ]
    text = "\n".join(f"A{c}b{c}{c} {c}1{c}.{c} {c}" for c in points)
    assert split(text, pattern) == expression.findall(text)


@every_pattern
def test_scanner_equals_the_expression_on_short_random_texts(pattern):
    alphabet = (
        "aAbB  \t\n\r's'StTrReElLvVmMdD'ſ015.,!/-_\xa0\u3000éÉßǅʰªא中ก\u0301\u0903²½٣😀\u200d\x85K"
    )
    rng = random.Random(0)
    expression = regex.compile(PATTERNS[pattern])
    for _ in range(20_000):
        text = "".join(rng.choices(alphabet, k=rng.randrange(16)))
        assert split(text, pattern) == expression.findall(text), ascii(text)


@every_pattern
def test_scanner_equals_the_expression_on_difficult_texts(pattern):
    expression = regex.compile(PATTERNS[pattern])
    for text in _probes.texts(seed=1, size=200_000):
        assert split(text, pattern) == expression.findall(text)


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "o200k", "superwords"])
def test_byte_patterns_lose_nothing(pattern):
    for text in _probes.texts(seed=2, size=50_000):
        assert "".join(split(text, pattern)) == text


def test_words_of_one_text_never_join_those_of_the_next():
    assert split_bytes(["ab", "", "cd"], "gpt2") == [b"ab", b"cd"]


def test_more_words_than_fit_one_block():
    text = "a " * (SPANS_PER_CALL + 10)
    assert split(text, "whitespace") == ["a"] * (SPANS_PER_CALL + 10)


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "o200k"])
def test_hugging_face_splits_alike_where_it_knows_the_character(pattern):
    library = pytest.importorskip("tokenizers")
    splitter = library.pre_tokenizers.Split(library.Regex(PATTERNS[pattern]), "isolated")
    points = [*range(0x3400), *range(0x3400, 0x110000, 97)]
    known = (c for c in map(chr, points) if unicodedata.category(c) not in {"Cn", "Cs"})
    for c in known:
        text = f"A{c}b{c}1{c}.{c} {c}\n{c}{c}"
        pieces = [piece for piece, _ in splitter.pre_tokenize_str(text)]
        assert pieces == split(text, pattern), hex(ord(c))
