import subprocess
import sys

import pytest

from harness.errors import UsageError
from suites.data import corpus
from suites.data.embedded import EMBEDDED, LANGUAGES

ALL = 10**9


def topics(documents) -> set[str]:
    return {document.topic for document in documents}


@pytest.mark.parametrize("data", EMBEDDED)
def test_a_split_shares_no_topic_and_holds_out_about_a_tenth(data, instruments):
    loaded = corpus.load(data, instruments, n_bytes=ALL)
    train, test = topics(loaded.train), topics(loaded.held_out)
    assert train.isdisjoint(test)
    n = len(train) + len(test)
    assert abs(len(test) - n / 10) < 4 * (0.09 * n) ** 0.5  # four deviations of n fair draws


@pytest.mark.parametrize("data", EMBEDDED)
def test_documents_have_names_of_their_own_and_text(data, instruments):
    loaded = corpus.load(data, instruments, n_bytes=ALL)
    documents = loaded.train + loaded.held_out
    assert len({document.name for document in documents}) == len(documents)
    assert all(document.text.strip() for document in documents)


@pytest.mark.parametrize("data", EMBEDDED)
def test_a_corpus_is_large_enough_to_train_on(data, instruments):
    facts = corpus.load(data, instruments, n_bytes=ALL).facts()
    assert facts["train_bytes"] > 500_000
    assert facts["held_out_bytes"] > 50_000


@pytest.mark.parametrize("n_bytes", [20_000, 300_000])
def test_a_sample_fills_its_size_evenly(n_bytes, instruments):
    loaded = corpus.load("code", instruments, n_bytes=n_bytes)
    for documents, share in ((loaded.train, 0.9), (loaded.held_out, 0.1)):
        sizes = [len(document.text.encode()) for document in documents]
        assert 0.8 * share * n_bytes < sum(sizes) <= share * n_bytes
        assert max(sizes) <= share * n_bytes / 20


def test_a_smaller_sample_is_the_beginning_of_a_larger_one(instruments):
    small = corpus.load("english", instruments, n_bytes=100_000).train
    large = corpus.load("english", instruments, n_bytes=400_000).train
    for mine, other in zip(small, large, strict=False):
        assert mine.name == other.name
        assert other.text.startswith(mine.text)


def test_a_seed_draws_other_documents_from_the_same_split(instruments):
    one = corpus.load("english", instruments, n_bytes=100_000, seed=1)
    two = corpus.load("english", instruments, n_bytes=100_000, seed=2)
    assert topics(one.train) != topics(two.train)
    assert topics(one.train).isdisjoint(topics(two.held_out))


def test_facts_name_the_text(instruments):
    load = corpus.load
    first = load("english", instruments, n_bytes=50_000).facts()
    assert first == load("english", instruments, n_bytes=50_000).facts()
    assert len(first["sha256"]) == 64
    assert {"python", "babel"} <= set(first)
    assert first["sha256"] != load("english", instruments, n_bytes=50_000, seed=1).facts()["sha256"]


def test_embedded_corpora_do_not_depend_on_hash_order():
    script = (
        "import hashlib, json; from suites.data.embedded import code, multilingual;"
        "print(hashlib.sha256(json.dumps([code(), multilingual()]).encode()).hexdigest())"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1


def test_no_document_tells_where_this_interpreter_lies(instruments):
    loaded = corpus.load("code", instruments, n_bytes=ALL)
    names = [document.name for document in loaded.train + loaded.held_out]
    assert not [name for name in names if "sysconfigdata" in name or name.startswith("config-")]


def test_parallel_texts_say_the_same_in_every_language(instruments):
    parallel = corpus.parallel(instruments)
    assert tuple(parallel) == LANGUAGES
    lines = {tuple(text.count("\n") for text in texts) for texts in parallel.values()}
    assert len(lines) == 1
    assert len(set(map(tuple, parallel.values()))) == len(LANGUAGES)
    trained_on = corpus.load("multilingual", instruments, n_bytes=ALL).train_texts
    assert not set(trained_on) & set(parallel["ja"])


def test_a_file_is_split_and_sampled(corpus_file, instruments):
    data = corpus_file([f"document {n}" for n in range(200)])
    loaded = corpus.load(data, instruments, n_bytes=ALL)
    assert len(loaded.train) + len(loaded.held_out) == 200
    assert 5 <= len(loaded.held_out) <= 40
    assert "python" not in loaded.facts()


@pytest.mark.parametrize("n", [2, 3])
def test_the_smallest_file_still_has_both_sides(corpus_file, instruments, n):
    loaded = corpus.load(corpus_file(["a", "b", "c"][:n]), instruments, n_bytes=ALL)
    assert len(loaded.train) == n - 1
    assert len(loaded.held_out) == 1


def test_one_document_cannot_be_split(corpus_file, instruments):
    with pytest.raises(UsageError, match=r"has 1 document.*at least 2"):
        corpus.load(corpus_file(["alone"]), instruments, n_bytes=ALL)


def test_a_hub_is_read_once(monkeypatch, instruments):
    reads = []

    def read_hub(address):
        reads.append(address)
        return [corpus.Document(f"{n}", f"text {n}", f"{n}") for n in range(50)]

    monkeypatch.setattr(corpus, "read_hub", read_hub)
    for _ in range(2):
        loaded = corpus.load("hf:org/set:en", instruments, n_bytes=ALL)
    assert reads == ["org/set:en"]
    assert len(loaded.train) + len(loaded.held_out) == 50


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("englich", "no corpus is called 'englich'; did you mean 'english'"),
        ("", "no corpus is called ''"),
        ("file:", r"no corpus is called 'file:'.*file:PATH, hf:NAME"),
        ("file:a.doc", r"suffix '\.doc', readable are"),
        ("hf:", "no corpus is called 'hf:'"),
        ("hf::x", "is no data set"),
    ],
)
def test_a_setting_that_names_no_corpus_is_refused(data, message):
    with pytest.raises(UsageError, match=message):
        corpus.check(data)


def test_a_cut_never_breaks_a_character():
    text = "über\nñandú"
    for n_bytes in range(1, 14):
        cut = corpus._cut(text, n_bytes)
        assert text.startswith(cut)
        assert len(cut.encode()) <= n_bytes
    assert corpus._cut(text, 8) == "über\n"


def test_what_is_kept_is_read_back_exactly(monkeypatch, instruments):
    odd = [corpus.Document(n, f'{n} "x"\u2028and\r\n\n\x85 \U0001f600', n) for n in "ab"]
    monkeypatch.setattr(corpus, "read_hub", lambda _: odd)
    loaded = corpus.load("hf:odd/set", instruments, n_bytes=ALL)
    assert sorted(loaded.train + loaded.held_out) == odd
