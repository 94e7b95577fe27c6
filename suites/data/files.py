"""Documents from a file: `.txt` a document a paragraph, `.jsonl` and `.parquet` a document a row.

Paragraphs are parted by blank lines; rows carry their text in "text". Every file is UTF-8.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow
from pyarrow import parquet

from harness.errors import UsageError
from suites.data.document import Document


def read_file(path: Path) -> list[Document]:
    """The documents of a file, named by its name and their place in it; empty ones are left out.

    Raises:
        UsageError: naming file, line or row and the remedy: if the file is missing, of an unknown
            suffix, damaged, not UTF-8 or without text.
    """
    check_suffix(path)
    if not path.is_file():
        raise UsageError(f"there is no file {path}: give its path as data=file:PATH")
    names = ((f"{path.name}:{place}", text) for place, text in READERS[path.suffix](path))
    documents = [Document(name, text, name) for name, text in names if text.strip()]
    if not documents:
        raise UsageError(f"{path} holds no text: give a file with at least two documents")
    return documents


def check_suffix(path: Path) -> None:
    """Refuse a file nobody can read.

    Raises:
        UsageError: if the suffix is unknown; names those that are not.
    """
    if path.suffix not in READERS:
        raise UsageError(
            f"{path} has suffix {path.suffix!r}, readable are {', '.join(READERS)}: "
            "convert or rename it"
        )


def _paragraphs(path: Path) -> Iterator[tuple[int, str]]:
    text = _decode(path.read_bytes(), path, first_line=1)
    yield from enumerate(re.split(r"\n\s*\n", text), start=1)


def _json_lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        text = _decode(line, path, first_line=number)
        if text.strip():
            yield number, _text_field(text, f"{path}:{number}")


def _text_field(line: str, place: str) -> str:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{place} is not JSON: {error}; write one object a line") from error
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise UsageError(f'{place} has no string "text": write {{"text": "..."}} on every line')
    if re.search("[\ud800-\udfff]", text):
        raise UsageError(f"{place} holds half a surrogate pair, which UTF-8 cannot: remove it")
    return text


def _parquet_rows(path: Path) -> Iterator[tuple[int, str]]:
    try:
        file = parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise UsageError(f"{path} is not a Parquet file: {error}; write it anew") from error
    if "text" not in file.schema_arrow.names:
        columns = ", ".join(file.schema_arrow.names)
        raise UsageError(f'{path} has no column "text" but {columns}: rename the one with text')
    for row, value in enumerate(file.read(columns=["text"])["text"]):
        try:
            text = value.as_py()
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} row {row} is not UTF-8: {error}; convert it") from error
        if not isinstance(text, str):
            raise UsageError(f"{path} row {row} is {text!r}, not a string: remove or fill the row")
        yield row, text


def _decode(data: bytes, path: Path, first_line: int) -> str:
    try:
        return data.decode("utf-8-sig")  # a byte-order mark is no text
    except UnicodeDecodeError as error:
        line = first_line + data.count(b"\n", 0, error.start)
        raise UsageError(
            f"{path}:{line} is not UTF-8 (byte {data[error.start]:#04x}): "
            "convert it, for example with iconv -t UTF-8"
        ) from error


READERS: Mapping[str, Callable[[Path], Iterator[tuple[int, str]]]] = {
    ".txt": _paragraphs,
    ".jsonl": _json_lines,
    ".parquet": _parquet_rows,
}
