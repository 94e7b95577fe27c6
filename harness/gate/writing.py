"""Files that a user named for an answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import UsageError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make the folder that the block writes to.

    Raises:
        UsageError: if the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; choose another file") from error
