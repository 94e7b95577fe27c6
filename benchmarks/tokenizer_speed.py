"""How fast are our tokenizers beside the libraries, on the same vocabulary and one thread?

    python benchmarks/tokenizer_speed.py [--rounds 3] [--only TEXT]

Trains on the standard library's source, hands each vocabulary to the libraries, and times ours and
theirs in turn, round after round, in one process. A ratio is theirs / ours in seconds per byte
(above 1: ours is faster), medians over rounds with a 95 % bootstrap interval. `cold` is a fresh
tokenizer that has seen no text; compiling and loading our kernels is in none of the times.
"""

import argparse
import os
import random
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import numpy as np
from scipy.stats import bootstrap
from tabulate import tabulate

from harness import catalogue
from impls.tokenizers import ByteBPE, SentencePiece, Unigram, WordPiece

PEERS = {
    ByteBPE(): ("tiktoken", "hf_bpe", "gigatoken", "fastokens"),
    WordPiece(vocab_size=8192): ("hf_wordpiece",),
    Unigram(vocab_size=8192): ("hf_unigram",),
    SentencePiece(vocab_size=8192): ("sentencepiece",),
    SentencePiece(vocab_size=8192, model="bpe"): ("sentencepiece",),
}
TRAIN_MB, SLOW_TO_TRAIN_MB, TEST_MB = 30, 4, 5  # all but byte-level BPE are slow to train

Work = Callable[[], Any]


class Case(NamedTuple):
    """One row: two pieces of work, each prepared anew before it is timed."""

    name: str
    ours: Callable[[], Work]
    theirs: Callable[[], Work]
    megabytes: tuple[float, float]
    facts: Callable[[Any], Any] | None  # what must be equal in both results; None: nothing


def corpus(train_mb: float, test_mb: float) -> tuple[list[str], list[str]]:
    """Disjoint files of the standard library and of what is installed in it."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    random.Random(0).shuffle(paths)
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths]
    ends = np.cumsum([len(text) for text in texts]) / 1e6
    a, b = np.searchsorted(ends, (train_mb, train_mb + test_mb)) + 1
    return texts[:a], texts[a:b]


def size(texts: Sequence[str]) -> float:
    """Megabytes of UTF-8."""
    return sum(len(text.encode()) for text in texts) / 1e6


def encoding(make: Callable[[], Any], texts: Sequence[str]) -> Callable[[], Work]:
    """Prepares the work of encoding the texts with what `make` returns."""

    def prepare() -> Work:
        tokenizer = make()
        return lambda: tokenizer.encode_batch(texts)

    return prepare


def encode_cases(tokenizer: Any, texts: Sequence[str]) -> list[Case]:
    """Cold and warm encoding beside each library; for byte-level BPE, text without boundaries."""
    recipe, n, cases = tokenizer.recipe, size(texts), []
    name = catalogue.name_of(recipe).partition("/")[2] + f" {getattr(recipe, 'model', '')}".rstrip()
    new = lambda: type(tokenizer).from_state(recipe, tokenizer.state())  # noqa: E731
    cold, warm = encoding(new, texts), encoding(lambda: tokenizer, texts)
    for slug in PEERS[recipe]:
        peer = catalogue.load(f"tokenizers/peers/{slug}")()
        adopted = peer.adopt(tokenizer)
        theirs = encoding(lambda peer=peer: peer.adopt(tokenizer), texts)
        theirs_warm = encoding(lambda adopted=adopted: adopted, texts)
        cases.append(Case(f"{name} cold / {slug}", cold, theirs, (n, n), np.concatenate))
        cases.append(Case(f"{name} warm / {slug}", warm, theirs_warm, (n, n), np.concatenate))
    if isinstance(recipe, ByteBPE):
        letters = "".join(c for text in texts for c in text if c.isalpha())[: 1 << 20]
        for kind, text in (("letters", letters), ("spaces", " " * (1 << 20))):
            unbroken, sizes = encoding(new, [text]), (n, size([text]))
            cases.append(Case(f"{name} cold / 1 MB of {kind}", cold, unbroken, sizes, None))
    return cases


def training_case(texts: Sequence[str]) -> Case:
    """Training beside Hugging Face; the merges must be equal."""
    peer, n = catalogue.load("tokenizers/peers/hf_bpe")(), size(texts)
    ours, theirs = lambda: ByteBPE().train(texts), lambda: peer.train(texts, ByteBPE())
    name, merges = "byte_bpe training / hf_bpe", lambda made: made.state()["merges"]
    return Case(name, lambda: ours, lambda: theirs, (n, n), merges)


def seconds(work: Work) -> tuple[float, Any]:
    """(seconds of wall clock, result)."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def measure(case: Case, rounds: int) -> list[str]:
    """A row: ours and theirs in MB/s, their time per byte over ours, whether the results agree."""
    samples, agree = [], True
    for number in range(rounds):
        turn = 1 if number % 2 else -1  # who goes first alternates
        (x, a), (y, b) = [seconds(make()) for make in (case.ours, case.theirs)[::turn]][::turn]
        samples.append((x, y))
        agree &= case.facts is None or np.array_equal(case.facts(a), case.facts(b))
    ours, theirs = np.array(samples).T / np.array(case.megabytes)[:, None]  # seconds per megabyte
    interval = bootstrap(
        (ours, theirs),
        lambda x, y, axis=-1: np.median(y, axis=axis) / np.median(x, axis=axis),
        paired=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    speeds = [f"{1 / np.median(times):.1f}" for times in (ours, theirs)]
    ratio = np.median(theirs) / np.median(ours)
    results = "" if case.facts is None else "equal" if agree else "DIFFER"
    return [case.name, *speeds, f"{ratio:.2f} [{interval.low:.2f}, {interval.high:.2f}]", results]


def main() -> None:
    """Print one markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="run the cases whose name holds this text")
    options = parser.parse_args()
    (train, test), (part, _) = corpus(TRAIN_MB, TEST_MB), corpus(SLOW_TO_TRAIN_MB, 0)
    cases = [training_case(train)]
    for recipe in PEERS:
        cases += encode_cases(recipe.train(train if type(recipe) is ByteBPE else part), test)
    rows = [measure(case, options.rounds) for case in cases if options.only in case.name]
    print(tabulate(rows, ["case", "ours MB/s", "theirs MB/s", "theirs / ours", "ids"], "github"))


if __name__ == "__main__":
    main()
