"""WordPiece: the published example, brute-force scores, and Hugging Face on the same vocabulary."""

import random
from collections import Counter
from itertools import pairwise, takewhile

import numpy as np
import pytest

from impls.tokenizers.interface import load
from impls.tokenizers.wordpiece import WordPiece

EXAMPLE = {"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}
TEXT = "the theatre of the other mother gathers there; These are 3,141 of THEIR fathers' feathers. "


def words(counts: dict[str, int]) -> list[str]:
    return [" ".join([word] * n) for word, n in counts.items()]


def learned(counts: dict[str, int], n_merges: int, **fields: object) -> list[str]:
    """Merges a recipe finds beyond the alphabet."""
    trained = WordPiece(vocab_size=30, min_frequency=1, **fields).train(words(counts))
    return [token for token in trained.vocabulary[5:] if len(token.removeprefix("##")) > 1][
        :n_merges
    ]


def brute_force(counts: dict[str, int], n_merges: int) -> list[tuple[str, float, int]]:
    """Best pair at each step, joined, its score and how many have it, recomputed from the words."""
    spelled = {w: [w[0], *(f"##{c}" for c in w[1:])] for w in counts}
    made = []
    for _ in range(n_merges):
        single, pairs = Counter(), Counter()
        for word, symbols in spelled.items():
            for symbol in symbols:
                single[symbol] += counts[word]
            for pair in pairwise(symbols):
                pairs[pair] += counts[word]
        a, b = max(pairs, key=lambda p: pairs[p] / (single[p[0]] * single[p[1]]))
        scores = [pairs[p] / (single[p[0]] * single[p[1]]) for p in pairs]
        made.append((a + b.removeprefix("##"), max(scores), scores.count(max(scores))))
        for symbols in spelled.values():
            k = 1
            while k < len(symbols):
                if (symbols[k - 1], symbols[k]) == (a, b):
                    symbols[k - 1 : k + 1] = [made[-1][0]]
                k += 1
    return made


def test_likelihood_merges_of_the_published_example():
    assert learned(EXAMPLE, 3) == ["##gs", "hu", "hugs"]
    assert [score for _, score, _ in brute_force(EXAMPLE, 3)] == pytest.approx(
        [1 / 20, 1 / 36, 1 / 15]
    )


def test_frequency_merges_of_the_published_example():
    assert learned(EXAMPLE, 2, score="frequency") == ["##ug", "##un"]


@pytest.mark.parametrize("seed", range(5))
def test_merges_have_the_best_score_by_brute_force(seed):
    rng = random.Random(seed)
    counts = {
        "".join(rng.choices("abcd", k=rng.randint(1, 8))): rng.randint(1, 997) for _ in range(40)
    }
    alphabet = {w[0] for w in counts} | {f"##{c}" for w in counts for c in w[1:]}
    trained = WordPiece(vocab_size=5 + len(alphabet) + 12, min_frequency=1).train(words(counts))
    made = list(trained.vocabulary[5 + len(alphabet) :])
    expected = list(takewhile(lambda step: step[2] == 1, brute_force(counts, 20)))
    # A token made in two ways is new only once.
    expected = list(dict.fromkeys(token for token, _, _ in expected))[:12]
    assert len(expected) > 2
    assert made[: len(expected)] == expected


def test_frequency_training_equals_hugging_face_when_letters_are_numbered():
    """Its trainer numbers ## letters in hash order; named beforehand, both break ties alike."""
    tokenizers = pytest.importorskip("tokenizers")
    rng = random.Random(0)
    texts = [" ".join("".join(rng.choices("abcdeé", k=rng.randint(1, 7))) for _ in range(300))]
    ours = WordPiece(
        vocab_size=200,
        score="frequency",
        tie_rule="id_pair",
        min_frequency=2,
        normalizer="none",
    ).train(texts)
    letters = [token for token in ours.vocabulary if len(token.removeprefix("##")) == 1]
    library = tokenizers.Tokenizer(tokenizers.models.WordPiece())
    library.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=200,
        min_frequency=2,
        special_tokens=[*ours.recipe.special_tokens, *letters],
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    vocabulary = library.get_vocab()
    assert tuple(sorted(vocabulary, key=vocabulary.__getitem__)) == ours.vocabulary


@pytest.fixture(scope="module")
def trained():
    return WordPiece(vocab_size=300).train([TEXT * 20, "naïve café 中文 ελληνικά кириллица " * 5])


def random_texts(n: int) -> list[str]:
    rng = random.Random(3)
    pieces = (
        "the| |Gather|é|e\u0301|中|\u3000|\t|\x00|!?|İ|\ufffd|ß|가|Σ|[UNK]|##s|\u2028|other|ﬁ|1,2"
    )
    pieces = [*pieces.split("|"), "x" * 101]
    texts = ["".join(rng.choices(pieces, k=rng.randint(0, 30))) for _ in range(n)]
    old = [chr(c) for c in range(0x20, 0x590) if unicodedata_age_is_old(c)]
    return texts + ["".join(rng.choices(old, k=40)) for _ in range(n)]


def unicodedata_age_is_old(code: int) -> bool:
    return code not in {0x52F, 0x560, 0x588, 0x58D, 0x58E, 0x37F}


@pytest.mark.parametrize("normalizer", ["bert", "none", "nfc", "nfkc"])
def test_ids_equal_hugging_face(normalizer):
    peer = pytest.importorskip("impls.tokenizers.peers.hf_wordpiece").HFWordPiece()
    ours = WordPiece(vocab_size=300, normalizer=normalizer).train(
        [TEXT * 20, "naïve café 中文 " * 5]
    )
    theirs = peer.adopt(ours)
    texts = random_texts(300)
    batch, expected = ours.encode_batch(texts), theirs.encode_batch(texts)
    for n, text in enumerate(texts):
        assert batch[n].tolist() == expected[n].tolist(), text


def test_marks_that_decomposition_reorders_take_the_slow_road(trained):
    peer = pytest.importorskip("impls.tokenizers.peers.hf_wordpiece").HFWordPiece()
    text = "the\u302e\u0323\u302f \U0001d165\u302e mother"
    assert trained.encode(text).tolist() == peer.adopt(trained).encode(text).tolist()


def test_a_word_with_a_missing_piece_is_one_unknown(trained):
    assert trained.encode("the th\u0e01e other").tolist().count(trained.unk_id) == 1
    assert trained.encode("x" * 101).tolist() == [trained.unk_id]


def test_words_longer_than_the_cache_row_and_many_pieces(trained):
    word = "gatherstherefeathersotherthe"
    assert trained.decode(trained.encode(word)) == word
    assert trained.encode(f"{word} {word}").tolist() == 2 * trained.encode(word).tolist()


def test_decoding_puts_one_space_between_words(trained):
    assert trained.decode(trained.encode("The  mother,\nthere")) == "the mother , there"


def test_special_tokens_are_data_unless_allowed(trained):
    unk = trained.special_tokens["[CLS]"]
    assert unk not in trained.encode("[CLS] the").tolist()
    assert trained.encode("[CLS] the", allowed_special={"[CLS]"}).tolist()[0] == unk
    with pytest.raises(ValueError, match=r"\[X\]"):
        trained.encode("the", allowed_special={"[X]"})


def test_save_and_load_give_the_same_ids(trained, tmp_path):
    trained.save(tmp_path / "t.json")
    np.testing.assert_array_equal(load(tmp_path / "t.json").encode(TEXT), trained.encode(TEXT))


def test_bad_corpora_and_fields_are_refused():
    with pytest.raises(ValueError, match="no words"):
        WordPiece().train(["", "  \n"])
    with pytest.raises(ValueError, match="alphabet has"):
        WordPiece(vocab_size=10).train([TEXT])
    with pytest.raises(ValueError, match="special_tokens"):
        WordPiece(special_tokens=("[PAD]",))


def test_a_megabyte_without_a_space_is_linear(trained):
    text = "x" * 1_000_000
    assert trained.encode(text).tolist() == [trained.unk_id]
