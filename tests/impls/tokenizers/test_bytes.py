import random

import pytest

from impls.tokenizers.bytes import Bytes


def test_ids_are_the_bytes_plus_three():
    text = "Größe 😀\0"
    assert Bytes().train([]).encode(text).tolist() == [byte + 3 for byte in text.encode()]


def test_special_tokens_have_the_ids_of_byt5():
    tokenizer = Bytes(special_tokens=("<extra>",)).train([])
    assert tokenizer.special_tokens == {"<pad>": 0, "</s>": 1, "<unk>": 2, "<extra>": 259}
    assert tokenizer.vocab_size == 260


def test_any_bytes_come_back():
    data = random.Random(0).randbytes(10_000)
    tokenizer = Bytes().train([])
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


def test_a_special_token_twice_is_refused():
    with pytest.raises(ValueError, match="distinct"):
        Bytes(special_tokens=("<pad>",))
