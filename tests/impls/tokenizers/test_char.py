import random

import pytest

from impls.tokenizers.char import Char


def test_ids_are_ranks_behind_the_bytes():
    tokenizer = Char(vocab_size=300).train(["cab", "ab", "aé"])
    assert tokenizer.characters == "abcé"
    assert tokenizer.encode("éa").tolist() == [259, 256]


def test_other_characters_are_spelled_in_bytes():
    tokenizer = Char(vocab_size=300).train(["ab"])
    assert tokenizer.encode("a中b").tolist() == [256, *"中".encode(), 257]


def test_the_cut_keeps_the_most_frequent():
    tokenizer = Char(vocab_size=257).train(["abb"])
    assert tokenizer.characters == "b"


def test_every_unicode_scalar_value_comes_back():
    points = [*range(0xD800), *range(0xE000, 0x110000)]
    random.Random(0).shuffle(points)
    text = "".join(map(chr, points))
    tokenizer = Char(vocab_size=5000).train([text[:100_000]])
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_any_bytes_come_back():
    data = random.Random(0).randbytes(10_000) + b"\xed\xa0\x80"
    tokenizer = Char(vocab_size=300).train(["ab"])
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


def test_one_id_a_character_where_all_are_known():
    text = "naïve Größe 中文 😀"
    assert len(Char().train([text]).encode(text)) == len(text)


def test_a_vocabulary_without_the_bytes_is_refused():
    with pytest.raises(ValueError, match="256 bytes"):
        Char(vocab_size=200)
