"""A process's place in a relay: it works only while it holds the baton (harness/relay.py).

At the start of a timed section, after each of its rounds, and at its end the process says so in one
word and waits for `go`. Whoever measures alone never waits. Of a cell with several ranks, rank 0
speaks for all, and the others wait for it. Rounds of less than `QUANTUM_S` are taken several at a
time: to hand over costs a tenth of a millisecond and leaves the caches to another process.
"""

import importlib
import socket
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal

Word = Literal["section", "round", "done"]
QUANTUM_S = 0.005


@dataclass
class Turns:
    """When this process may go on; by default always."""

    address: str = ""  # where the one who hands out turns listens; "": nobody does
    generation: int = 0  # which of the processes that repeat this cell it is
    generations: int = 1  # how many there are; they share its rounds
    rank: int = 0
    world: int = 1
    waited_s: float = field(default=0.0, init=False)  # for others to take their turns
    _connection: socket.socket | None = field(default=None, init=False)
    _since: float = field(default=0.0, init=False)  # when the baton came

    def share(self, rounds: int) -> int:
        """How many of a section's rounds fall to this process: equal parts, rounded up."""
        return -(-rounds // self.generations)

    def wait(self, word: Word) -> None:
        """Say where this process stands and wait for its turn.

        Raises:
            ConnectionError: if nobody hands out turns any more.
        """
        start = perf_counter()
        soon = word == "round" and start - self._since < QUANTUM_S
        if self.address and self.rank == 0 and not soon:
            self._say(word)
        if self.world > 1:
            _distributed().barrier()
        self.waited_s += perf_counter() - start

    def agreed(self, decision: bool) -> bool:
        """What rank 0 decided, on every rank."""
        if self.world == 1:
            return decision
        torch = importlib.import_module("torch")
        flag = torch.tensor([decision])
        _distributed().broadcast(flag, src=0)
        return bool(flag)

    def _say(self, word: Word) -> None:
        if self._connection is None:
            self._connection = socket.socket(socket.AF_UNIX)
            self._connection.connect(self.address)
        self._connection.sendall(f"{word}\n".encode())
        if self._connection.recv(16) != b"go\n":
            raise ConnectionError("the relay has ended")
        self._since = perf_counter()


def _distributed() -> Any:
    return importlib.import_module("torch.distributed")
