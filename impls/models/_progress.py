"""Progress of a training run: a bar on a terminal, else a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 30.0


@contextmanager
def shown(steps: int, tokens: int) -> Iterator[Callable[[int, float], None]]:
    """A listener for (steps done, loss of the last one), each step of so many tokens."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console, steps, tokens)
        return
    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=steps)
        told = _Told(steps, tokens)
        yield lambda done, loss: bar.update(task, completed=done, description=told.line(done, loss))


def _lines(console: Console, steps: int, tokens: int) -> Callable[[int, float], None]:
    told, last = _Told(steps, tokens), [time.monotonic()]

    def listen(done: int, loss: float) -> None:
        line = told.line(done, loss)
        if time.monotonic() - last[0] >= LINE_EVERY_S:
            last[0] = time.monotonic()
            console.print(line, highlight=False)

    return listen


class _Told:
    """How far a run is, in words; the rate is that of this process."""

    def __init__(self, steps: int, tokens: int) -> None:
        self.steps, self.tokens = steps, tokens
        self.began, self.seen = time.monotonic(), 0

    def line(self, done: int, loss: float) -> str:
        self.seen += 1
        rate = self.seen * self.tokens / max(time.monotonic() - self.began, 1e-9)
        return f"step {done} of {self.steps}  loss {loss:.3f}  {rate:,.0f} tokens/s"
