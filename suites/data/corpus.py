"""A corpus: documents by name, a held-out split, and a sample of any size, all reproducible.

A document is held out, and drawn early or late, by the hash of its name: the split is the same at
every size and seed, a smaller sample is part of a larger one, and no order of files matters.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.code import code_digest
from harness.errors import UsageError, near
from harness.instruments import Instruments
from suites.data.document import Document
from suites.data.embedded import EMBEDDED, LANGUAGES, versions
from suites.data.files import check_suffix, read_file
from suites.data.hub import parse, read_hub

HELD_OUT = 0.1  # share of the topics, and of the bytes sampled
FEWEST_DOCUMENTS = 20  # in a sample: no document fills more than a twentieth of it


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """What one cell trains on and what it is tested on."""

    data: str
    train: tuple[Document, ...]
    held_out: tuple[Document, ...]

    @property
    def train_texts(self) -> list[str]:
        """Texts to learn from."""
        return [document.text for document in self.train]

    @property
    def held_out_texts(self) -> list[str]:
        """Texts no training has seen."""
        return [document.text for document in self.held_out]

    @property
    def train_sha256(self) -> str:
        """Names what a training on this corpus depends on."""
        return _sha256(self.train)

    def facts(self) -> dict[str, Any]:
        """For the record: which text this was."""
        return {
            "data": self.data,
            "sha256": _sha256(self.train + self.held_out),
            "train_documents": len(self.train),
            "train_bytes": _bytes(self.train),
            "held_out_documents": len(self.held_out),
            "held_out_bytes": _bytes(self.held_out),
            **(versions() if self.data in EMBEDDED else {}),
        }


def check(data: str) -> None:
    """Refuse a setting that names no corpus, before anything is read.

    Raises:
        UsageError: for an unknown name (with near misses), suffix or form.
    """
    kind, _, rest = data.partition(":")
    if kind == "file" and rest:
        check_suffix(Path(rest))
    elif kind == "hf" and rest:
        parse(rest)
    elif data not in EMBEDDED:
        raise UsageError(
            f"no corpus is called {data!r}{near(data, EMBEDDED)} "
            f"(embedded: {', '.join(EMBEDDED)}; your own: file:PATH, hf:NAME)"
        )


def load(
    data: str, instruments: Instruments, *, n_bytes: int, seed: int = 0, held_out: float = HELD_OUT
) -> Corpus:
    """About `n_bytes` of text: documents drawn with the seed, long ones cut at a line end.

    Args:
        data: `english`, `code`, `multilingual`, `file:PATH` or `hf:NAME[:CONFIG[:SPLIT[:COLUMN]]]`.
        instruments: keep what is slow to read as an artifact.
        n_bytes: UTF-8 bytes of both splits together; fewer if the corpus is smaller.
        seed: draws other documents; which are held out stays.
        held_out: share of topics and bytes to test on.

    Raises:
        UsageError: if the corpus cannot be read or has fewer than two topics.
    """
    train, test = _split(_documents(data, instruments), data, held_out)
    test_bytes = round(n_bytes * held_out)
    return Corpus(
        data=data,
        train=_sample(train, n_bytes - test_bytes, seed),
        held_out=_sample(test, test_bytes, seed),
    )


def parallel(instruments: Instruments) -> dict[str, list[str]]:
    """Held-out texts of `multilingual` by language, English first; the n-th all say the same."""
    _, test = _split(_documents("multilingual", instruments), "multilingual", HELD_OUT)
    by_name = {document.name: document.text for document in test}
    topics = sorted({document.topic for document in test})
    return {language: [by_name[f"{t}/{language}"] for t in topics] for language in LANGUAGES}


def _documents(data: str, instruments: Instruments) -> list[Document]:
    check(data)
    kind, _, rest = data.partition(":")
    if kind == "file":
        return read_file(Path(rest))
    made_from = {"code": code_digest(["suites.data.embedded", "suites.data.hub"]), **versions()}
    path = instruments.artifacts.get(
        "corpus",
        {"data": data, **made_from},
        lambda place: _write(read_hub(rest) if kind == "hf" else EMBEDDED[data](), place),
    )
    with path.open(encoding="utf-8") as file:
        return [Document(*json.loads(line)) for line in file]


def _write(documents: Iterable[Document], path: Path) -> None:
    path.write_text("".join(f"{json.dumps(document)}\n" for document in documents))


def _split(
    documents: Sequence[Document], data: str, held_out: float
) -> tuple[list[Document], list[Document]]:
    draws = {document.topic: _draw(document.topic) for document in documents}
    if len(draws) < 2:
        raise UsageError(
            f"data={data} has {len(draws)} document: training and testing need at least 2; "
            "part its text by blank lines or rows"
        )
    # A handful of topics may all fall on one side; each side then keeps at least one.
    count = sum(draw < held_out for draw in draws.values())
    first = sorted(draws, key=draws.__getitem__)[: min(max(count, 1), len(draws) - 1)]
    test = set(first)
    train = [document for document in documents if document.topic not in test]
    return train, [document for document in documents if document.topic in test]


def _sample(documents: Sequence[Document], n_bytes: int, seed: int) -> tuple[Document, ...]:
    ordered = sorted(documents, key=lambda document: _draw(f"{seed}/{document.name}"))
    if _bytes(ordered) <= n_bytes:
        return tuple(ordered)
    share = n_bytes // min(FEWEST_DOCUMENTS, len(ordered))
    chosen, taken = [], 0
    for document in ordered:
        text = _cut(document.text, share)
        taken += len(text.encode())
        if taken > n_bytes:
            break
        if text.strip():  # a cut may leave only a blank line
            chosen.append(document._replace(text=text))
    return tuple(chosen)


def _cut(text: str, n_bytes: int) -> str:
    """At most so many bytes of the text, up to the end of a line if there is one."""
    data = text.encode()
    if len(data) <= n_bytes:
        return text
    start = data[:n_bytes].decode(errors="ignore")  # drops the part of a character at the end
    return start[: start.rfind("\n") + 1] or start


def _draw(name: str) -> float:
    """A number in [0, 1) that only the name decides."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48


def _sha256(documents: Sequence[Document]) -> str:
    return hashlib.sha256(json.dumps(documents).encode()).hexdigest()


def _bytes(documents: Iterable[Document]) -> int:
    return sum(len(document.text.encode()) for document in documents)
