"""What every tokenizer satisfies, over all techniques of the family."""

import json
from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest
from pydantic import TypeAdapter

from harness import catalogue
from impls.tokenizers import _probes
from impls.tokenizers.interface import NoExport, Tokenizer, TokenizerFileError, load

TECHNIQUES = tuple(name for name in catalogue.techniques() if name.startswith("tokenizers/"))
PEERS = tuple((name, peer) for name in TECHNIQUES for peer in catalogue.peers_of(name))
SPECIAL = ("<|end|>", "<|end|>>")
SAMPLES = _probes.texts(seed=0, size=20_000)

every_technique = pytest.mark.parametrize("name", TECHNIQUES)


def recipe(name: str):
    made = catalogue.load(name)()
    changes = {"vocab_size": 1024} if hasattr(made, "vocab_size") else {}
    if hasattr(made, "special_tokens"):
        changes["special_tokens"] = (*made.special_tokens, *SPECIAL)
    return replace(made, **changes)


@cache
def trained(name: str) -> Tokenizer:
    return recipe(name).train(_probes.corpus(0))


@every_technique
def test_lossless_tokenizers_give_every_text_back(name):
    tokenizer = trained(name)
    if not tokenizer.lossless:
        pytest.skip("the technique says it is lossy")
    for text in SAMPLES:
        assert tokenizer.decode(tokenizer.encode(text)) == text


@every_technique
def test_encoding_a_decoded_text_again_changes_nothing_more(name):
    tokenizer = trained(name)
    for text in SAMPLES:
        once = tokenizer.decode(tokenizer.encode(text))
        if tokenizer.unk_id is None or tokenizer.unk_id not in tokenizer.encode(text):
            assert tokenizer.decode(tokenizer.encode(once)) == once


@every_technique
def test_ids_are_uint32_below_vocab_size(name):
    tokenizer = trained(name)
    for text in SAMPLES:
        ids = tokenizer.encode(text)
        assert ids.dtype == np.uint32
        assert ids.ndim == 1
        assert not len(ids) or ids.max() < tokenizer.vocab_size


@every_technique
def test_a_batch_is_its_texts_one_after_the_other(name):
    tokenizer = trained(name)
    batch = tokenizer.encode_batch(SAMPLES)
    assert len(batch.offsets) == len(SAMPLES) + 1
    for n, text in enumerate(SAMPLES):
        np.testing.assert_array_equal(batch[n], tokenizer.encode(text))


@every_technique
def test_an_empty_text_and_an_empty_batch_have_no_ids(name):
    tokenizer = trained(name)
    assert tokenizer.decode(tokenizer.encode("")) == ""
    assert tokenizer.encode_batch([]).offsets.tolist() == [0]


@every_technique
def test_bytes_and_text_of_the_same_content_have_the_same_ids(name):
    tokenizer = trained(name)
    for text in SAMPLES:
        np.testing.assert_array_equal(tokenizer.encode_bytes(text.encode()), tokenizer.encode(text))


@every_technique
def test_a_lone_surrogate_is_refused_by_name(name):
    with pytest.raises(ValueError, match="surrogate"):
        trained(name).encode("a\ud800b")


@every_technique
def test_special_tokens_in_text_are_data_unless_allowed(name):
    tokenizer = trained(name)
    special = next((token for token in SPECIAL if token in tokenizer.special_tokens), None)
    if special is None:
        pytest.skip("the technique has no special tokens of the user's")
    text = f"one {special} two"
    id_ = tokenizer.special_tokens[special]
    assert id_ not in tokenizer.encode(text)
    assert list(tokenizer.encode(text, allowed_special=(special,))).count(id_) == 1


@every_technique
def test_the_longest_allowed_special_token_is_taken(name):
    tokenizer = trained(name)
    if not set(SPECIAL) <= set(tokenizer.special_tokens):
        pytest.skip("the technique has no special tokens of the user's")
    ids = tokenizer.encode(SPECIAL[1], allowed_special=SPECIAL)
    assert tokenizer.special_tokens[SPECIAL[1]] in ids


@every_technique
def test_an_unknown_special_token_is_refused_by_name(name):
    with pytest.raises(ValueError, match="nonsense"):
        trained(name).encode("text", allowed_special=("<nonsense>",))


@every_technique
def test_an_id_that_does_not_exist_is_refused(name):
    tokenizer = trained(name)
    with pytest.raises(ValueError, match=str(tokenizer.vocab_size)):
        tokenizer.decode_bytes([tokenizer.vocab_size])


@every_technique
def test_saving_and_loading_keeps_every_id(name, tmp_path):
    tokenizer = trained(name)
    tokenizer.save(tmp_path / "tokenizer.json")
    again = load(tmp_path / "tokenizer.json")
    assert again.recipe == tokenizer.recipe
    assert again.special_tokens == tokenizer.special_tokens
    np.testing.assert_array_equal(
        again.encode_batch(SAMPLES).ids, tokenizer.encode_batch(SAMPLES).ids
    )


@every_technique
def test_a_file_of_another_version_is_refused(name, tmp_path):
    path = tmp_path / "tokenizer.json"
    trained(name).save(path)
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "version": 99}))
    with pytest.raises(TokenizerFileError, match="99"):
        load(path)


@pytest.mark.parametrize("technique", ["tokenizers/nonsense", "../secret", None])
def test_a_file_of_an_unknown_technique_is_refused(technique, tmp_path):
    path = tmp_path / "tokenizer.json"
    trained(TECHNIQUES[0]).save(path)
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "technique": technique}))
    with pytest.raises(TokenizerFileError, match="lacks"):
        load(path)


@every_technique
def test_a_damaged_file_is_refused(name, tmp_path):
    path = tmp_path / "tokenizer.json"
    trained(name).save(path)
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(TokenizerFileError):
        load(path)
    document = json.loads(whole)
    if document["state"]:
        path.write_text(json.dumps({**document, "state": {}}))
        with pytest.raises(TokenizerFileError, match="damaged"):
            load(path)


@every_technique
def test_training_is_deterministic(name):
    assert recipe(name).train(_probes.corpus(0)).state() == trained(name).state()


@every_technique
def test_an_empty_corpus_is_refused(name):
    if not hasattr(recipe(name), "vocab_size"):
        pytest.skip("the technique learns nothing")
    with pytest.raises(ValueError, match=r"empty|at least one"):
        recipe(name).train([])


@every_technique
def test_a_vocabulary_without_room_is_refused(name):
    made = recipe(name)
    if not hasattr(made, "vocab_size"):
        pytest.skip("the technique has a fixed vocabulary")
    with pytest.raises(ValueError, match="vocab_size"):
        replace(made, vocab_size=2).train(_probes.corpus(0))


@every_technique
def test_a_recipe_survives_json(name):
    made = recipe(name)
    text = json.dumps(asdict(made))
    assert TypeAdapter(type(made)).validate_json(text, strict=True) == made


@pytest.mark.parametrize(("name", "peer"), PEERS)
def test_a_peer_that_adopts_the_vocabulary_gives_the_same_ids(name, peer):
    if missing := catalogue.missing_packages(peer):
        pytest.skip(f"needs {missing}")
    ours = trained(name)
    try:
        theirs = catalogue.load(peer)().adopt(ours)
    except NoExport as reason:
        pytest.skip(str(reason))
    for text in SAMPLES:
        assert list(theirs.encode(text)) == list(ours.encode(text)), ascii(text[:80])


@pytest.mark.parametrize("peer", sorted({peer for _, peer in PEERS}))
def test_a_peer_says_that_it_runs_on_one_thread(peer):
    if missing := catalogue.missing_packages(peer):
        pytest.skip(f"needs {missing}")
    assert asdict(catalogue.load(peer)())["threads"] == 1
