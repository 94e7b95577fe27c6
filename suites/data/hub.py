"""Documents from a data set of the Hugging Face hub, through the optional `datasets` package."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from harness.errors import UsageError
from suites.data.document import Document

LIMIT_BYTES = 64_000_000  # read no further: more than any suite samples, less than a web crawl


class Address(NamedTuple):
    """Where a column of text lies on the hub."""

    name: str
    config: str | None = None
    split: str = "train"
    column: str = "text"


def parse(address: str) -> Address:
    """`NAME`, or as much of `NAME:CONFIG:SPLIT:COLUMN` as is needed; an empty part is its default.

    Raises:
        UsageError: if there is no name or there are more than four parts.
    """
    name, *parts = address.split(":")
    if not name or len(parts) > 3:
        raise UsageError(
            f"hf:{address} is no data set: write hf:NAME or hf:NAME:CONFIG:SPLIT:COLUMN"
        )
    given = zip(Address._fields[1:], parts, strict=False)
    return Address(name)._replace(**{field: part for field, part in given if part})


def read_hub(address: str) -> list[Document]:
    """The first 64 MB of a data set's text column, a document a row, empty rows left out.

    Raises:
        UsageError: without the `datasets` package, the hub, the data set or its column, or if a
            row holds no string.
    """
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            f"data=hf:{address} needs the datasets package: pip install -e '.[hub]'"
        ) from error
    name, config, split, column = parse(address)
    try:
        rows = datasets.load_dataset(name, config, split=split, streaming=True)
        documents = list(_documents(rows, address, column))
    except UsageError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: no such config or split
        raise UsageError(
            f"data=hf:{address} cannot be read: {error}; check the name and the connection, or "
            "use an embedded corpus or data=file:PATH, which need none"
        ) from error
    if not documents:
        raise UsageError(f"data=hf:{address} holds no text in column {column!r}")
    return documents


def _documents(rows: Any, address: str, column: str) -> Iterator[Document]:
    read = 0
    for number, row in enumerate(rows):
        if column not in row:
            raise UsageError(
                f"data=hf:{address} has no column {column!r} but {', '.join(row)}: "
                "name one as the last part of hf:NAME:CONFIG:SPLIT:COLUMN"
            )
        text = row[column]
        if not isinstance(text, str):
            raise UsageError(
                f"data=hf:{address} row {number}: {column!r} is no string but {text!r}"
            )
        read += len(text.encode())
        if read > LIMIT_BYTES:
            return
        if text.strip():
            yield Document(f"{address}:{number}", text, f"{address}:{number}")
