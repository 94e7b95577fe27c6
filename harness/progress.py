"""Progress of a shard: a live table on a terminal, plain lines otherwise; drawn on events only."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.cell import Cell
from harness.record import OUTCOMES, Record
from harness.shard import Event

_LAST = 8  # ended cells that stay in sight
_COLOURS = {"ok": "green", "skipped": "yellow"}


@contextmanager
def progress(console: Console, total: int, done: int) -> Iterator[Callable[[Event], None]]:
    """A listener for a shard's events."""
    state = _State(total, done)
    if not console.is_terminal:
        yield lambda event: _print_line(console, state, event)
        return
    with Live(console=console, auto_refresh=False) as live:

        def listen(event: Event) -> None:
            state.take(event)
            live.update(state.table(), refresh=True)

        yield listen


class _State:
    """What has happened so far."""

    def __init__(self, total: int, done: int) -> None:
        self.total = total
        self.done = done
        self.running: dict[str, Cell] = {}
        self.ended: list[Record] = []
        self.counts: Counter[str] = Counter()

    def take(self, event: Event) -> None:
        if event.record is None:
            self.running[event.cell.cell_id] = event.cell
            return
        self.running.pop(event.cell.cell_id, None)
        self.ended = [*self.ended, event.record][-_LAST:]
        self.counts[event.record.outcome] += 1
        self.done += 1

    def table(self) -> Table:
        counts = ", ".join(f"{self.counts[o]} {o}" for o in OUTCOMES if self.counts[o])
        table = Table(title=f"{self.done} of {self.total} cells  {counts}", title_justify="left")
        for name in ("outcome", "suite", "technique", "setting", "time"):
            table.add_column(name, overflow="fold")
        for record in self.ended:
            colour = _COLOURS.get(record.outcome, "red")
            outcome = f"[{colour}]{record.outcome}[/]"
            time = f"{record.wall_s:.2f} s"
            axes = Text(_axes(record.setting))
            table.add_row(outcome, record.suite, record.technique, axes, time)
        for cell in self.running.values():
            axes = Text(_axes(cell.setting))
            table.add_row("[dim]runs[/]", cell.suite, cell.technique, axes, "")
        return table


def _print_line(console: Console, state: _State, event: Event) -> None:
    state.take(event)
    if event.record is not None:
        record = event.record
        reason = f": {record.reason}" if record.reason else ""
        count = f"[{state.done}/{state.total}]"
        line = f"{count} {record.outcome} {record.label} {record.wall_s:.2f} s{reason}"
        console.print(line, markup=False, highlight=False)


def _axes(setting: Mapping[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in setting.items())
