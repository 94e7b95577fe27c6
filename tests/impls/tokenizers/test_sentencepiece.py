"""SentencePiece against the library, both ways, and damaged files."""

import io
import random

import pytest

from impls.tokenizers._model_proto import (
    NORMAL,
    UNKNOWN,
    ModelProto,
    Piece,
    read_model,
    write_model,
)
from impls.tokenizers.interface import NoExport, load
from impls.tokenizers.sentencepiece import SentencePiece, load_model

TEXT = "the theatre of the other mother gathers there; these are their fathers' feathers."
LINES = [TEXT, "naïve café 中文 ελληνικά", "aaa aaaa aaaaa ab aab", "x = [1, 2, 3]  # ***"] * 8


def random_texts(n: int) -> list[str]:
    rng = random.Random(7)
    pieces = "the| |  |\n|\t|gather|e\u0301|中|\u3000|ﬁ|①|ｶﾞ|가|\x7f|aaaa|***|\u2581|<unk>|<0x41>"
    pieces = [*pieces.split("|"), "\U0001f600"]
    texts = ["".join(rng.choices(pieces, k=rng.randint(0, 30))) for _ in range(n)]
    codes = [c for c in range(1, 0x30000) if not 0xD800 <= c < 0xE000]
    return texts + ["".join(map(chr, rng.choices(codes, k=30))) for _ in range(n)]


def library_model(**options: object) -> bytes:
    library = pytest.importorskip("sentencepiece")
    written = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=written,
        minloglevel=2,
        hard_vocab_limit=False,
        **{"vocab_size": 400 if options.get("byte_fallback") else 120, **options},
    )
    return written.getvalue()


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byte_fallback": True},
        {"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
        {"normalization_rule_name": "nfkc_cf", "add_dummy_prefix": False, "byte_fallback": True},
        {"treat_whitespace_as_suffix": True},
        {"split_by_whitespace": False},
    ],
    ids=str,
)
def test_the_librarys_models_give_the_librarys_ids_and_texts(model_type, options):
    library = pytest.importorskip("sentencepiece")
    data = library_model(model_type=model_type, **options)
    ours, theirs = load_model(data), library.SentencePieceProcessor(model_proto=data)
    texts = [*random_texts(150), "*" * 19, " ".join(LINES * 20)]
    batch = ours.encode_batch(texts)
    for n, text in enumerate(texts):
        ids = theirs.encode(text)
        assert batch[n].tolist() == ids, text
        assert ours.decode(ids) == theirs.decode(ids)


@pytest.mark.parametrize("model", ["unigram", "bpe"])
@pytest.mark.parametrize("byte_fallback", [True, False])
def test_the_library_runs_our_models(model, byte_fallback):
    peer = pytest.importorskip("impls.tokenizers.peers.sentencepiece").SentencePieceLibrary()
    ours = SentencePiece(vocab_size=400, model=model, byte_fallback=byte_fallback).train(LINES)
    texts = [*random_texts(150), " ".join(LINES * 20)]
    batch, expected = ours.encode_batch(texts), peer.adopt(ours).encode_batch(texts)
    for n, text in enumerate(texts):
        assert batch[n].tolist() == expected[n].tolist(), text
    again = load_model(ours.to_model())
    assert again.encode(TEXT).tolist() == ours.encode(TEXT).tolist()


@pytest.mark.parametrize("joint", ["", " "])
def test_long_texts_repeat_the_librarys_rounding(joint):
    """Its float32 sums are coarse by then, and start anew below -100,000."""
    peer = pytest.importorskip("impls.tokenizers.peers.sentencepiece").SentencePieceLibrary()
    ours = SentencePiece(vocab_size=400).train(LINES)
    words = random.Random(0).choices(
        ["the", "gather", "aab", "aaaa", "[1,", "x", "theirs"], k=40_000
    )
    text = joint.join(words)
    ids = ours.encode(text)
    assert ours.log_probability(ids) < -100_000
    assert ids.tolist() == peer.adopt(ours).encode(text).tolist()


def test_nfkc_from_unicodedata_has_no_model_file():
    ours = SentencePiece(vocab_size=400, normalizer="nfkc").train(LINES)
    assert ours.encode("ﬁ").tolist() == ours.encode("fi").tolist()
    with pytest.raises(NoExport, match="precompiled"):
        ours.to_model()


def test_save_and_load_keep_a_character_map(tmp_path):
    ours = load_model(library_model(model_type="unigram"))
    ours.save(tmp_path / "t.json")
    assert load(tmp_path / "t.json").encode("ﬁ ①").tolist() == ours.encode("ﬁ ①").tolist()


def test_bpe_has_no_probabilities():
    ours = SentencePiece(vocab_size=400, model="bpe").train(LINES)
    with pytest.raises(NoExport, match="BPE"):
        ours.log_probability([1])


def test_every_truncation_of_a_model_is_one_clear_error():
    ours = SentencePiece(vocab_size=300, character_coverage=0.9).train(LINES)
    data = ours.to_model()
    for size in range(0, len(data), 7):
        with pytest.raises(ValueError, match=r"\.model"):
            load_model(data[:size])


def test_damage_never_raises_anything_else():
    data = library_model(model_type="unigram", vocab_size=100)
    rng = random.Random(0)
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(3):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            load_model(bytes(damaged)).encode("the ﬁ \u00c5 other")
        except ValueError:
            continue


def test_the_proto_survives_writing():
    model = ModelProto(
        pieces=(Piece("<unk>", 0.0, UNKNOWN), Piece("a", -1.5, NORMAL)),
        byte_fallback=False,
        add_dummy_prefix=False,
        normalizer="identity",
    )
    assert read_model(write_model(model)) == model


def test_bad_corpora_and_fields_are_refused():
    with pytest.raises(ValueError, match="no words"):
        SentencePiece().train(["", "  "])
    with pytest.raises(ValueError, match="alphabet has"):
        SentencePiece(vocab_size=262).train(LINES)
    with pytest.raises(ValueError, match="precompiled"):
        SentencePiece(normalizer="precompiled").train(LINES)
