"""Expensive things that cells share, built once: a content-addressed cache with leases."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from harness.cell import digest
from harness.lease import Lease, Leases

_LOOK_S = 60.0  # how long one look at another's lease waits


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
        leases = Leases(place.parent / ".leases")
        leases.folder.mkdir(parents=True, exist_ok=True)
        while not content.exists():
            if lease := leases.take(place.name, wait_s=_LOOK_S):
                try:
                    _build(place, identity, build, lease, resumable=resumable)
                finally:
                    lease.release()
        return content


def _build(
    place: Path,
    identity: dict[str, Any],
    build: Callable[[Path], object],
    lease: Lease,
    *,
    resumable: bool,
) -> None:
    scratch = place.with_name(f".{place.name}")
    if not resumable:  # what is there is of dead builders
        for stale in place.parent.glob(f"{scratch.name}*"):
            shutil.rmtree(stale, ignore_errors=True)
        scratch = place.with_name(f"{scratch.name}-{lease.holder.token}")
    if (place / "content").exists():
        return
    scratch.mkdir(exist_ok=True)
    try:
        build(scratch / "content")
        if not (scratch / "content").exists():
            raise ValueError(f"the builder of {place.parent.name} {identity} wrote nothing")
        (scratch / "identity.json").write_text(json.dumps(identity, indent=1, sort_keys=True))
        scratch.rename(place)
    except OSError:
        if lease.held:  # else another took us for dead, and cleared up or finished
            raise
    finally:
        if not resumable:
            shutil.rmtree(scratch, ignore_errors=True)


def default_folder() -> Path:
    """`$LLMATRIX_CACHE`, or the user's cache folder."""
    chosen = os.environ.get("LLMATRIX_CACHE")
    return Path(chosen) if chosen else user_cache_path("llmatrix")
