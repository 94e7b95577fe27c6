"""What an attention technique can do, and the size of a call, which its formulas are about."""

from dataclasses import dataclass
from typing import Literal

Growth = Literal["linear", "window", "constant"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What a technique can do; the contract tests hold it to each, suites ask before they plan."""

    causal: bool = True
    bidirectional: bool = True
    gqa: bool = True  # G < H
    bias: bool = False  # takes a score bias, so position encodings that add one
    dense: bool = False  # plain softmax over all visible keys: its weights may be written out
    padding: bool = True  # takes `keep`
    cross: bool = True  # Tq != Tk
    backward: bool = True  # has gradients, on a CPU too
    shift: bool = True  # only distances decide which keys are read: left padding changes nothing
    decoding: Growth = "linear"  # how the decoding state grows with the tokens taken in
    cost: Literal["quadratic", "subquadratic"] = "quadratic"  # of one pass, over its length


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """The size of one attention call, for formulas."""

    batch: int = 1
    n_heads: int = 8
    n_kv_heads: int = 8
    n_q: int = 1024
    n_k: int = 1024
    d_head: int = 64
    causal: bool = True
    itemsize: int = 4  # bytes of an element

    @property
    def pairs(self) -> int:
        """Query-key pairs of dense attention, bottom-right aligned where causal."""
        if not self.causal:
            return self.n_q * self.n_k
        first = self.n_k - self.n_q + 1  # keys the first query sees
        return sum(max(0, first + i) for i in range(self.n_q))
