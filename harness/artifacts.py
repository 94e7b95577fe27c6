"""Expensive things that cells share, built once: a content-addressed cache with locks."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path

from harness.cell import digest


@dataclass(frozen=True)
class Artifacts:
    """A folder of artifacts, each named by the hash of what it is made from."""

    folder: Path

    def get(
        self,
        kind: str,
        identity: dict[str, Any],
        build: Callable[[Path], object],
        *,
        resumable: bool = False,
    ) -> Path:
        """The artifact's path; `build(path)` makes it if it is not there, one builder at a time.

        A builder writes a file or a folder at the path it is given. If it dies half-way, whoever
        waits for it clears up and builds anew; if `resumable`, the folder around that path stays as
        the dead one left it, for the next to go on from.

        Raises:
            ValueError: if `build` wrote nothing.
        """
        place = self.folder / kind / digest(identity)
        content = place / "content"
        if content.exists():
            return content
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock"):
            if not content.exists():
                _build(place, identity, build, resumable)
        return content


def _build(
    place: Path, identity: dict[str, Any], build: Callable[[Path], object], resumable: bool
) -> None:
    scratch = place.with_name(f".{place.name}")  # one builder at a time: what is there is stale
    if not resumable:
        shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(exist_ok=True)
    try:
        build(scratch / "content")
        if not (scratch / "content").exists():
            raise ValueError(f"the builder of {place.parent.name} {identity} wrote nothing")
        (scratch / "identity.json").write_text(json.dumps(identity, indent=1, sort_keys=True))
        scratch.rename(place)
    finally:
        if not resumable:
            shutil.rmtree(scratch, ignore_errors=True)


def default_folder() -> Path:
    """`$LLMATRIX_CACHE`, or the user's cache folder."""
    chosen = os.environ.get("LLMATRIX_CACHE")
    return Path(chosen) if chosen else user_cache_path("llmatrix")
