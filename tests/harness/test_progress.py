"""Progress is a line a cell without a terminal and a table with one; data is never markup."""

from io import StringIO

import pytest
from rich.console import Console

from harness.cell import Cell
from harness.progress import progress
from harness.record import Record
from harness.shard import Event

NOTES = ("plain", "[red]", "[/]", "[/usr/lib]", "\\[")


def cell(note):
    return Cell(suite="trial", technique="trial/behave", options={}, setting={"n": note}, code="c")


def record(note, outcome="ok", reason=""):
    return Record(
        cell_id="0123456789abcdef",
        run="a",
        suite="trial",
        technique="trial/behave",
        options={},
        setting={"n": note},
        code="c",
        world=1,
        device="cpu",
        command="llmatrix run",
        outcome=outcome,
        reason=reason,
        started="2026-01-01T00:00:00.000+00:00",
        wall_s=1.25,
    )


def shown(*events, terminal, total=2, done=0):
    written = StringIO()
    console = Console(file=written, force_terminal=terminal, width=120, color_system=None)
    with progress(console, total, done) as listen:
        for event in events:
            listen(event)
    return written.getvalue()


@pytest.mark.parametrize("note", NOTES)
@pytest.mark.parametrize("terminal", [True, False])
def test_an_ended_cell_is_shown_as_it_is(note, terminal):
    event = Event(worker=0, cell=cell(note), record=record(note))
    assert f"n={note}" in shown(event, terminal=terminal)


@pytest.mark.parametrize("note", NOTES)
def test_a_running_cell_is_shown_on_a_terminal_only(note):
    event = Event(worker=0, cell=cell(note), record=None)
    assert f"n={note}" in shown(event, terminal=True)
    assert shown(event, terminal=False) == ""


def test_a_line_counts_from_what_was_done_and_gives_the_reason():
    failed = record("x", outcome="failed", reason="[/] went wrong")
    line = shown(Event(worker=0, cell=cell("x"), record=failed), terminal=False, total=5, done=3)
    assert line == "[4/5] failed trial trial/behave n=x 1.25 s: [/] went wrong\n"
