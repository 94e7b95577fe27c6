import numpy as np
import pytest

from impls.tokenizers import _probes
from impls.tokenizers.bpe import BPE

TOY = [" ".join(["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3)]


def learned(tokenizer):
    tokens = tokenizer.tokens()
    return [(tokens[a], tokens[b]) for a, b in tokenizer.merges.tolist()]


@pytest.mark.parametrize("tie_rule", ["id_pair", "greatest_text"])
def test_the_most_frequent_ending_is_the_second_merge(tie_rule):
    tokenizer = BPE(vocab_size=60, tie_rule=tie_rule).train(TOY)
    assert "".join(learned(tokenizer)[1]) == "est</w>"


def test_merges_equal_those_of_subword_nmt():
    pytest.importorskip("subword_nmt")
    from impls.tokenizers.peers.subword_nmt import SubwordNMTPeer

    for texts, size in ((TOY, 60), (_probes.corpus(0)[:6], 700)):
        recipe = BPE(vocab_size=size)
        assert SubwordNMTPeer().train(texts, recipe).state() == recipe.train(texts).state()


def test_whitespace_becomes_one_space():
    tokenizer = BPE(vocab_size=60).train(TOY)
    assert tokenizer.decode(tokenizer.encode("  low\n\tlower  widest ")) == "low lower widest"


def test_a_character_that_was_not_seen_is_unknown():
    tokenizer = BPE(vocab_size=60).train(TOY)
    assert tokenizer.encode("loz").tolist()[-1] == tokenizer.unk_id
    assert tokenizer.encode("é").tolist() == [tokenizer.unk_id]


def test_a_known_character_is_known_at_the_end_of_a_word():
    tokenizer = BPE(vocab_size=60).train(TOY)
    assert tokenizer.unk_id not in tokenizer.encode("n i d")


def test_a_vocabulary_smaller_than_the_alphabet_says_what_it_needs():
    with pytest.raises(ValueError, match="need 21"):
        BPE(vocab_size=20).train(TOY)


def test_data_that_is_not_utf8_is_refused():
    with pytest.raises(UnicodeDecodeError):
        BPE(vocab_size=60).train(TOY).encode_bytes(b"\xff")


def test_the_tie_rule_decides_the_toy_corpus():
    by_id, by_text = (
        learned(BPE(vocab_size=60, tie_rule=rule).train(TOY))
        for rule in ("id_pair", "greatest_text")
    )
    assert by_id[0] == ("e", "s")
    assert by_text[0] == ("s", "t</w>")


def test_long_words_need_no_whitespace():
    tokenizer = BPE(vocab_size=60).train(TOY)
    word = "lowest" * 500
    assert tokenizer.decode(tokenizer.encode(word)) == word
    assert np.count_nonzero(tokenizer.encode(word) == tokenizer.unk_id) == 0
