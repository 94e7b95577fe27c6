"""A run's folder: one record file a cell, claims so that no cell runs twice, and nothing lost.

results/<run>/plan.json          what was planned
results/<run>/cells/<id>.json    one record a cell
results/<run>/superseded/        records that a retry replaced, files that could not be read
results/<run>/claims/<id>.<n>    a lease (harness/lease.py) held while a cell runs
results/<run>/scratch/<id>/      where a cell in flight works, a folder for each try
"""

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from harness.cell import Cell
from harness.errors import UsageError, near
from harness.lease import Lease, Leases
from harness.record import Outcome, Record, RecordError, from_json, to_json


@dataclass(frozen=True)
class Store:
    """The folder of one run."""

    folder: Path
    claims: Leases = field(init=False, compare=False, repr=False)
    held: dict[str, Lease] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "claims", Leases(self.folder / "claims"))

    @property
    def run(self) -> str:
        """Name of the run."""
        return self.folder.name

    def create(self) -> None:
        """Make the folders.

        Raises:
            UsageError: if they cannot be written.
        """
        try:
            for name in ("cells", "claims", "scratch", "superseded"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as probe:
                probe.write(b"\0" * 4096)
        except OSError as error:
            raise UsageError(
                f"cannot write to {self.folder}: {error.strerror}; "
                "make room or choose another folder with results=PATH"
            ) from error

    def write_plan(self, document: dict[str, Any]) -> None:
        """What was asked and planned, for the shards and for later readers.

        Raises:
            UsageError: if it cannot be written.
        """
        with self.writing("the plan"):
            write_atomically(self.folder / "plan.json", json.dumps(document, indent=1).encode())

    def read_plan(self) -> dict[str, Any]:
        """What `write_plan` wrote.

        Raises:
            UsageError: if the run has none or it cannot be read.
        """
        try:
            plan: dict[str, Any] = json.loads((self.folder / "plan.json").read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError(f"run {self.run!r} has no readable plan.json: {error}") from error
        return plan

    def has(self, cell_id: str) -> bool:
        """Whether the cell has its record."""
        return self._path(cell_id).exists()

    def write(self, record: Record) -> None:
        """Put the record in place, whole or not at all.

        It is dropped if the claim on its cell was lost: the record is another process's to write.

        Raises:
            UsageError: if the disk is full or read-only; all earlier records stay.
        """
        claim = self.held.get(record.cell_id)
        if claim is not None and not claim.held:
            return
        with self.writing(f"the record of {record.label}"):
            write_atomically(self._path(record.cell_id), to_json(record))

    @contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """Turn a disk that is full or read-only into one message that says how to go on.

        Raises:
            UsageError: if the block could not write.
        """
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"cannot write {what} to {self.folder}: {error.strerror}; "
                f"make room and go on with: llmatrix run run={self.run}"
            ) from error

    def records(self) -> tuple[list[Record], dict[Path, str]]:
        """All records by cell id, and the files that are none with what is wrong with them."""
        good: list[Record] = []
        bad: dict[Path, str] = {}
        for path in sorted((self.folder / "cells").glob("*.json")):
            try:
                good.append(from_json(path.read_bytes()))
            except (OSError, RecordError) as error:
                bad[path] = str(error)
        return good, bad

    def supersede(
        self, outcomes: Collection[Outcome], *, skipped: Collection[str] = ()
    ) -> dict[Path, str]:
        """Set aside the records with these outcomes, so that their cells run again.

        Records of skips are set aside unless their cells are still `skipped`; files that are no
        records always, and they are returned with their faults.
        """
        good, bad = self.records()
        again = [
            self._path(record.cell_id)
            for record in good
            if record.outcome in outcomes
            or (record.outcome == "skipped" and record.cell_id not in skipped)
        ]
        for path in [*again, *bad]:
            number = len(list((self.folder / "superseded").glob(f"{path.stem}*")))
            with suppress(FileNotFoundError):  # another process on this run was first
                path.rename(self.folder / "superseded" / f"{path.stem}.{number}.json")
        return bad

    @contextmanager
    def claim(self, cell: Cell, *, wait_s: float = 0) -> Iterator[bool]:
        """Hold the cell against every other process; False if it is done or another's.

        Another's claim is waited for so long; if that process dies, or its machine falls silent,
        the cell becomes ours.

        Raises:
            UsageError: if the claim cannot be written.
        """
        with self.writing(f"the claim of {cell.label}"):
            claim = self.claims.take(cell.cell_id, wait_s=wait_s)
        if claim is None:
            yield False
            return
        self.held[cell.cell_id] = claim
        try:
            yield not self.has(cell.cell_id)
        finally:
            del self.held[cell.cell_id]
            if self.has(cell.cell_id):
                shutil.rmtree(self.scratch(cell), ignore_errors=True)
            claim.release()

    def in_flight(self) -> int:
        """How many cells processes that are alive hold now."""
        held = {path.stem for path in (self.folder / "claims").iterdir()}
        return sum(not self.claims.abandoned(cell_id) for cell_id in held)

    def tidy(self) -> None:
        """Clear what a killed process left of cells that have their record."""
        for claim in (self.folder / "claims").iterdir():
            if self.has(claim.stem):
                claim.unlink(missing_ok=True)
        for scratch in (self.folder / "scratch").iterdir():
            if self.has(scratch.name):
                shutil.rmtree(scratch, ignore_errors=True)

    def scratch(self, cell: Cell) -> Path:
        """Where the cell works while it is in flight: under a claim, a folder no other try uses."""
        folder, claim = self.folder / "scratch" / cell.cell_id, self.held.get(cell.cell_id)
        return folder / claim.holder.token if claim else folder

    def _path(self, cell_id: str) -> Path:
        return self.folder / "cells" / f"{cell_id}.json"


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside, flush to disk, rename: a reader sees all of it or none."""
    temporary = path.with_name(f".{path.name}-{uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def open_run(results: Path, run: str) -> Store:
    """The store of an existing run.

    Raises:
        UsageError: if there is no such run, with near misses.
    """
    folder = results / run
    if not (folder / "plan.json").exists():
        runs = sorted(path.parent.name for path in results.glob("*/plan.json"))
        known = f" (runs there: {', '.join(runs)})" if runs else ""
        raise UsageError(f"no run {run!r} in {results}{near(run, runs)}{known}")
    return Store(folder)


def cells_to_json(cells: Collection[Cell]) -> list[dict[str, Any]]:
    """Cells as plan.json keeps them."""
    return [asdict(cell) for cell in cells]


def cells_from_json(document: list[dict[str, Any]]) -> list[Cell]:
    """Cells out of plan.json."""
    return [Cell(**{k: v for k, v in cell.items() if k != "cell_id"}) for cell in document]
