"""Kept-alive processes take turns: one baton, rounds in random order, everyone else asleep.

A timed section is what `Instruments.clock` or `interleave` runs; its rounds are the turns. All
members first come to the beginning of their section, then every round gives each of them one turn,
in an order drawn anew; when all have done their rounds, each goes on in turn to its next section.
So drift and neighbours hit all members alike, and what lies between sections never runs beside
anything that is timed. The parent blocks while a member works; the processor time it takes
meanwhile is measured.

Whatever speaks the words of harness/instruments/turns.py can be a member: cells forked by the
server (harness/isolate.py), a test run of another revision (harness/pytest_plugin.py).
"""

import random
import selectors
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Protocol


class Member(Protocol):
    """A process that a relay can run."""

    def start(self, address: str) -> None:
        """Begin; the process is to connect to the Unix socket `address` at its first section."""

    def fileno(self) -> int:
        """What becomes readable when the process has ended."""

    def kill(self) -> None:
        """End the process, which `fileno` then tells."""


class Runner:
    """A member in its relay: where it stands, and how long it held the baton."""

    def __init__(self, member: Member, address: str, limit_s: float) -> None:
        self.member = member
        self.held_s = 0.0
        self.timed_s = 0.0  # of it, in rounds
        self.parent_cpu_s = 0.0  # of this process during those
        self.started = False
        self.timed_out = False
        self.live = False
        self.word = ""  # what it said last
        self._limit_s = limit_s
        self._address = address
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen(1)
        self._connection: socket.socket | None = None
        self._heard = selectors.DefaultSelector()  # kept: made anew, it would cost most of a turn
        self._heard.register(self._listener, selectors.EVENT_READ)

    def begin(self) -> None:
        """Start the process and let it come to its first section."""
        self.started = True
        self._hold(self._start)

    def turn(self) -> None:
        """Let it go on to its next word, or its end."""
        held, cpu, timed = self.held_s, process_time(), self.word in ("section", "round")
        self._hold(self._go)
        if timed:
            self.timed_s += self.held_s - held
            self.parent_cpu_s += process_time() - cpu

    def close(self) -> None:
        """End the member if it still runs."""
        if self.live:
            self.member.kill()
            self._until_ended()
        self._heard.close()
        for end in (self._listener, self._connection):
            if end is not None:
                end.close()

    def _start(self) -> None:
        self.member.start(self._address)
        self._heard.register(self.member, selectors.EVENT_READ)
        self.live = True

    def _go(self) -> None:
        if self._connection is not None:
            try:
                self._connection.sendall(b"go\n")
            except ConnectionError:
                self.word = ""  # it is gone: what waits for its end will see

    def _hold(self, begin: Callable[[], None]) -> None:
        start = perf_counter()
        begin()
        self._wait()
        self.held_s += perf_counter() - start

    def _wait(self) -> None:
        """Until it says a word or ends; past its time limit it is killed."""
        deadline = perf_counter() + self._limit_s - self.held_s
        while True:
            ready = self._heard.select(max(0.0, deadline - perf_counter()))
            if not ready:
                self.timed_out = True
                self.member.kill()
                self._until_ended()
                return
            if any(key.fileobj is self.member for key, _ in ready):
                self.live = False
                return
            if self._connection is None:
                self._connection, _ = self._listener.accept()
                self._heard.unregister(self._listener)
                self._heard.register(self._connection, selectors.EVENT_READ)
                continue
            self.word = self._connection.recv(64).decode().strip()
            if self.word:
                return
            self._heard.unregister(self._connection)  # hung up: its end comes next

    def _until_ended(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.member, selectors.EVENT_READ)
            selector.select()
        self.live = False


def run_relay(
    members: Sequence[Member],
    *,
    limit_s: float,
    seed: int,
    admit: Callable[[], bool] = lambda: True,
) -> list[Runner]:
    """Run all members to their ends; what each of them did, in their order.

    `limit_s` bounds the seconds that each holds the baton. Before every member but the first,
    `admit` is asked whether there is room for one more; who is not admitted was not `started`.
    """
    with tempfile.TemporaryDirectory(prefix="llmatrix-") as folder:
        runners = [
            Runner(member, str(Path(folder) / str(number)), limit_s)
            for number, member in enumerate(members)
        ]
        try:
            _run(runners, random.Random(seed), admit)
        finally:
            for runner in runners:
                runner.close()
    return runners


def _run(runners: Sequence[Runner], chance: random.Random, admit: Callable[[], bool]) -> None:
    for number, runner in enumerate(runners):
        if number and not admit():
            break
        runner.begin()
    while live := [runner for runner in runners if runner.live]:
        racing = list(live)
        while racing:
            chance.shuffle(racing)
            for runner in racing:
                runner.turn()
            racing = [runner for runner in racing if runner.live and runner.word == "round"]
        for runner in live:
            if runner.live:
                runner.turn()
