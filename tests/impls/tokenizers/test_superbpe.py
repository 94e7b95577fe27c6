import pytest

from impls.tokenizers import _probes
from impls.tokenizers.byte_bpe import ByteBPE
from impls.tokenizers.superbpe import SuperBPE


def learned(tokenizer):
    return tokenizer.pieces[256:]


def test_only_the_second_stage_merges_across_spaces():
    tokenizer = SuperBPE(vocab_size=2000, transition=0.5).train(_probes.corpus(0))
    pieces = learned(tokenizer)
    assert not any(b" " in piece.strip(b" ") for piece in pieces[: 1000 - 256])
    assert any(b" " in piece.strip(b" ") for piece in pieces[1000 - 256 :])


def test_the_first_stage_is_byte_level_bpe():
    subwords = learned(ByteBPE(vocab_size=1000).train(_probes.corpus(0)))
    both = learned(SuperBPE(vocab_size=2000, transition=0.5).train(_probes.corpus(0)))
    assert both[: len(subwords)] == subwords


def test_superwords_make_texts_shorter():
    texts = _probes.corpus(0)
    subwords = ByteBPE(vocab_size=4000).train(texts).encode_batch(texts)
    superwords = SuperBPE(vocab_size=4000, transition=0.5).train(texts).encode_batch(texts)
    assert len(superwords.ids) < len(subwords.ids)


def test_no_token_joins_the_words_of_two_lines_or_joins_more_than_three_digits():
    for piece in learned(SuperBPE(vocab_size=2000, transition=0.3).train(_probes.corpus(0))):
        assert b"\n" not in piece.rstrip(b"\r\n") or piece.isspace()
        assert not piece.isdigit() or len(piece) <= 3


def test_tiktoken_runs_both_stages():
    pytest.importorskip("tiktoken")
    from impls.tokenizers.peers.tiktoken import TiktokenPeer

    tokenizer = SuperBPE(vocab_size=2000, transition=0.4).train(_probes.corpus(0))
    peer = TiktokenPeer().adopt(tokenizer)
    for text in [*_probes.corpus(1), *_probes.texts(seed=7, size=50_000)]:
        assert list(peer.encode(text)) == list(tokenizer.encode(text))


def test_a_transition_outside_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match="transition"):
        SuperBPE(transition=1.2)
