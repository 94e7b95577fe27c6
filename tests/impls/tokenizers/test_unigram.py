"""Unigram: exact sums over all segmentations on small texts, EM's guarantees, and the libraries."""

import math
import random
from itertools import combinations, pairwise

import numpy as np
import pytest
from scipy.stats import chisquare

from impls.tokenizers._unigram_em import seed
from impls.tokenizers.interface import load
from impls.tokenizers.unigram import Unigram, UnigramTokenizer

TEXT = "the theatre of the other mother gathers there\n    these are their fathers' feathers. "
PIECES = {"a": 0.3, "b": 0.2, "ab": 0.25, "ba": 0.1, "aba": 0.1, " ": 0.05}


def small(**fields: object) -> UnigramTokenizer:
    recipe = Unigram(vocab_size=300, **fields)
    return UnigramTokenizer(recipe, list(PIECES), [math.log(p) for p in PIECES.values()])


def segmentations(text: str) -> dict[tuple[str, ...], float]:
    """Every spelling in pieces and its probability."""
    found = {}
    for n in range(len(text)):
        for cuts in combinations(range(1, len(text)), n):
            parts = tuple(text[i:j] for i, j in zip((0, *cuts), (*cuts, len(text)), strict=True))
            if all(part in PIECES for part in parts):
                found[parts] = math.prod(PIECES[part] for part in parts)
    return found


def spelled(tokenizer: UnigramTokenizer, ids: np.ndarray) -> tuple[str, ...]:
    return tuple(tokenizer.token_bytes(int(i)).decode() for i in ids)


@pytest.fixture(scope="module")
def trained():
    return Unigram(vocab_size=400).train([TEXT * 30, "naïve café 中文 ελληνικά " * 5])


@pytest.mark.parametrize("text", ["abababa", "aab", "baab", "b"])
def test_encode_and_n_best_are_the_best_of_all_segmentations(text):
    every = sorted(segmentations(text).values(), reverse=True)
    tokenizer = small()
    best = tokenizer.encode(text)
    assert tokenizer.log_probability(best) == pytest.approx(math.log(every[0]))
    found = tokenizer.n_best(text, 5)
    assert [score for score, _ in found] == pytest.approx([math.log(p) for p in every[:5]])
    assert len({spelled(tokenizer, ids) for _, ids in found}) == len(found)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_samples_follow_the_smoothed_distribution(alpha):
    tokenizer = small(alpha=alpha)
    weights = {parts: p**alpha for parts, p in segmentations("ababa").items()}
    rng = np.random.default_rng(0)
    n = 4000
    counts = dict.fromkeys(weights, 0)
    for _ in range(n):
        counts[spelled(tokenizer, tokenizer.sample("ababa", rng))] += 1
    expected = np.array(list(weights.values())) * n / sum(weights.values())
    assert chisquare(list(counts.values()), expected).pvalue > 1e-3


def test_expected_counts_equal_the_sum_over_segmentations():
    lattices = seed({"abab": 3, "ba": 2}, {"a", "b"}, 4, 100)
    names = [lattices.piece(n) for n in range(len(lattices.p))]
    p = dict(zip(names, lattices.p, strict=True))
    counts, log_likelihood = lattices.expect()
    expected = dict.fromkeys(names, 0.0)
    total = 0.0
    for word, n in (("abab", 3), ("ba", 2)):
        every = {}
        for k in range(len(word)):
            for cuts in combinations(range(1, len(word)), k):
                parts = [word[i:j] for i, j in zip((0, *cuts), (*cuts, len(word)), strict=True)]
                if all(part in p for part in parts):
                    every[tuple(parts)] = math.prod(p[part] for part in parts)
        z = sum(every.values())
        total += n * math.log(z)
        for parts, weight in every.items():
            for part in parts:
                expected[part] += n * weight / z
    assert log_likelihood == pytest.approx(total, rel=1e-12)
    assert counts.tolist() == pytest.approx(list(expected.values()), rel=1e-12)


def test_seeds_are_the_repeated_substrings():
    lattices = seed({"banana": 1, "bandana": 1}, set("band"), 16, 1000)
    found = {lattices.piece(n) for n in range(len(lattices.p))}
    assert found == {"b", "a", "n", "d", "ban", "an", "ana", "na"}


def test_long_words_neither_underflow_nor_lose_counts():
    word = "".join(random.Random(0).choices("abcdefgh", k=5000))
    lattices = seed({word: 1}, set("abcdefgh"), 8, 10_000)
    counts, log_likelihood = lattices.expect()
    assert math.isfinite(log_likelihood)
    assert (counts * lattices.lengths).sum() == pytest.approx(5000, rel=1e-9)


def test_em_never_lowers_the_likelihood():
    rng = random.Random(1)
    words = {
        "".join(rng.choices("abcd", k=rng.randint(1, 9))): rng.randint(1, 50) for _ in range(200)
    }
    lattices = seed(words, set("abcd"), 6, 1000)
    likelihoods = []
    for _ in range(12):
        counts, log_likelihood = lattices.expect()
        likelihoods.append(log_likelihood)
        lattices.maximise(counts + 1e-300, variational=False)
    assert all(b >= a - 1e-9 * abs(a) for a, b in pairwise(likelihoods))
    assert likelihoods[-1] > likelihoods[0] + 1


def test_trained_probabilities_sum_to_one_and_keep_letters(trained):
    p = np.exp(trained.scores[trained.first_piece :])
    assert p.sum() == pytest.approx(1, abs=2.0**-12)
    assert trained.vocab_size <= 400
    assert {"t", "h", "e", "中"} <= set(trained.pieces)


def test_every_string_comes_back(trained):
    for text in ("", " ", "  x\n\n\ty ", "the \u2581 \x00 \U0001f600 \u0e01", TEXT):
        assert trained.decode(trained.encode(text)) == text
    assert trained.lossless
    assert not small(byte_fallback=False).lossless


def test_unknown_characters_are_one_token_without_bytes():
    tokenizer = small(byte_fallback=False)
    assert tokenizer.encode("aб中b").tolist() == [*tokenizer.encode("a"), 0, *tokenizer.encode("b")]
    assert tokenizer.log_probability([0]) == pytest.approx(math.log(0.05) - 10)


def random_texts(n: int) -> list[str]:
    rng = random.Random(5)
    pieces = [
        "the",
        " ",
        "  ",
        "\n",
        "\t",
        "gather",
        "é",
        "中",
        "\u3000",
        "\x00",
        "fathers",
        "é",
        "😀",
        "ﬁ",
        "aaa",
        "\r\n",
    ]
    pieces += ["t" * 20, "#" * 68, "fathers", "é"]
    return ["".join(rng.choices(pieces, k=rng.randint(0, 30))) for _ in range(n)]


@pytest.mark.parametrize("pattern", ["each_space", "space_runs"])
@pytest.mark.parametrize("byte_fallback", [True, False])
def test_ids_equal_hugging_face(pattern, byte_fallback):
    peer = pytest.importorskip("impls.tokenizers.peers.hf_unigram").HFUnigram()
    recipe = Unigram(vocab_size=400, pattern=pattern, byte_fallback=byte_fallback)
    ours = recipe.train(
        [TEXT * 30, "<unk> <0x41> " * 9, "aaaa aaaaa aaa " * 9, f"\n{'#' * 78}\n" * 9]
    )
    texts = [*random_texts(300), "<unk>", "<0x41> the"]
    batch, expected = ours.encode_batch(texts), peer.adopt(ours).encode_batch(texts)
    for n, text in enumerate(texts):
        assert batch[n].tolist() == expected[n].tolist(), text


def test_ids_equal_sentencepiece():
    library = pytest.importorskip("impls.tokenizers.peers.sentencepiece")
    ours = Unigram(vocab_size=400, pattern="each_space").train([TEXT * 30])
    texts = [text for text in random_texts(300) if "\x00" not in text]
    theirs = library.SentencePieceLibrary().adopt(ours)
    batch, expected = ours.encode_batch(texts), theirs.encode_batch(texts)
    for n, text in enumerate(texts):
        assert batch[n].tolist() == expected[n].tolist(), text


def test_batch_is_encode_of_each_and_words_do_not_depend_on_the_cache(trained):
    texts = random_texts(50)
    batch = trained.encode_batch(texts)
    for n, text in enumerate(texts):
        fresh = UnigramTokenizer.from_state(trained.recipe, trained.state())
        np.testing.assert_array_equal(batch[n], fresh.encode(text))


def test_save_and_load_give_the_same_ids(trained, tmp_path):
    trained.save(tmp_path / "t.json")
    np.testing.assert_array_equal(load(tmp_path / "t.json").encode(TEXT), trained.encode(TEXT))


def test_training_is_deterministic(trained):
    again = trained.recipe.train([TEXT * 30, "naïve café 中文 ελληνικά " * 5])
    assert again.state() == trained.state()


def test_bad_corpora_and_fields_are_refused():
    with pytest.raises(ValueError, match="no words"):
        Unigram().train([""])
    with pytest.raises(ValueError, match="alphabet has"):
        Unigram(vocab_size=260).train([TEXT])
    for fields in ({"alpha": -1.0}, {"shrink": 1.0}, {"character_coverage": 0.0}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            Unigram(**fields)
