"""Log n scaling: queries grow with the logarithm of their position, so attention stays as sharp.

    q_p -> max(1, log(p + 1) / log L) q_p

p a position, L trained length. Softmax over n keys flattens as n grows; scores that grow with log n
keep its entropy from growing. Alone it helps little; with a rotation that extrapolates it does.
"""

from dataclasses import dataclass
from typing import ClassVar

from harness.card import Card
from impls.context._log_scaled import LogScaled
from impls.context.interface import EncodingRule, PositionEncoding

CARD = Card(
    cls="LogNScaling",
    title="Log n scaling",
    paper="arXiv:2202.12172",
    year=2022,
    summary="Scales queries beyond the trained length by the logarithm of their position.",
    oracle="identity: unchanged up to the trained length; the factor written out beyond it",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LogNScaling(EncodingRule):
    """Scores that grow with log n."""

    kind: ClassVar = "score"
    unchanged_within: ClassVar = True

    def extended(
        self, encoding: PositionEncoding, *, train_len: int, target_len: int
    ) -> PositionEncoding:
        """The encoding with scaled queries."""
        return LogScaled(encoding, train_len)
