"""LongRoPE: every frequency has its own factor, found by search; the first tokens stay as trained.

    theta'_i = theta_i / lambda_i,   lambda_i <= lambda_(i+1)   for positions m >= n
    q'.k' -> (1 + ln s / ln L) q'.k'

lambda_i one set of factors up to the trained length L (`short_factors`) and one beyond
(`long_factors`), n first tokens, s target length over L. `searched` is the evolutionary search of
the paper, which needs no training but many readings. A text that grows beyond L while it is decoded
leaves keys in the cache that were turned by the short set, so one pass and decoding then differ.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from harness.card import Card
from impls.context._frequencies import check_factor, ntk
from impls.context._rescaled import Rescaled, as_trained
from impls.context.interface import FrequencyRecipe, PositionEncoding, RopeShape, scale_of

CARD = Card(
    cls="LongRoPE",
    title="LongRoPE",
    paper="arXiv:2402.13753",
    year=2024,
    summary="A factor for each frequency, found by evolutionary search; first tokens unchanged.",
    oracle="transformers' rope_type longrope",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LongRoPE(FrequencyRecipe):
    """Non-uniform interpolation of positions."""

    short_factors: tuple[float, ...] = ()  # (): all 1
    long_factors: tuple[float, ...] = ()  # (): those of NTK-aware scaling, where a search starts
    factor: float | None = None  # s; None: target length / trained length
    kept: int = 0  # n: tokens at the beginning that turn as trained

    exact_decoding: ClassVar = False

    def __post_init__(self) -> None:
        check_factor(self.factor)
        if self.kept < 0:
            raise ValueError(f"kept must not be negative, got {self.kept}")
        for name in ("short_factors", "long_factors"):
            if any(factor <= 0 for factor in getattr(self, name)):
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")

    def frequencies(self, rope: RopeShape, *, target_len: int, length: int) -> tuple[Tensor, float]:
        """Each frequency over its factor, and the factor that sharpens attention.

        Raises:
            ValueError: if there are not as many factors as frequencies.
        """
        scale = scale_of(self.factor, rope.train_len, target_len)
        sharpened = math.sqrt(1 + math.log(scale) / math.log(rope.train_len))
        factors = self.short_factors if length <= rope.train_len else self.long_factors
        if factors and len(factors) != rope.d // 2:
            raise ValueError(f"{len(factors)} factors do not fit {rope.d // 2} frequencies")
        if factors:
            return rope.theta / torch.tensor(factors, dtype=torch.float64), sharpened
        return (rope.theta if length <= rope.train_len else ntk(rope, scale)), sharpened

    def extended(
        self, encoding: PositionEncoding, *, train_len: int, target_len: int
    ) -> PositionEncoding:
        """The rotation under these frequencies, its first tokens as trained."""
        trained = as_trained(encoding)
        rope = RopeShape(d=trained.d, base=trained.base, train_len=train_len)
        return Rescaled(
            trained,
            lambda length: self.frequencies(rope, target_len=target_len, length=length),
            kept=self.kept,
        )


def searched(
    loss: Callable[[LongRoPE], float],
    rope: RopeShape,
    *,
    target_len: int,
    population: int = 16,
    generations: int = 8,
    seed: int = 0,
) -> LongRoPE:
    """The recipe of the smallest loss that an evolutionary search finds.

    It begins with the factors of no, linear and NTK-aware interpolation; in each generation the
    better half stays, and mutation and crossover of its members make the other. Factors never fall
    with the frequency's index, and stay between 1 and s.

    Args:
        loss: of a recipe, say the mean loss on texts of target length; called once a candidate.
        rope: the rotation as trained.
        target_len: tokens to read.
        population: candidates of a generation, at least 4.
        generations: rounds of selection.
        seed: of mutation and crossover.
    """
    if population < 4 or generations < 1:
        raise ValueError(
            f"need population >= 4 and generations >= 1, got {population}, {generations}"
        )
    rng, scale = np.random.default_rng(seed), target_len / rope.train_len
    n, by_ntk = rope.d // 2, (rope.theta / ntk(rope, scale)).numpy()
    starts = [np.ones(n), np.full(n, scale), by_ntk]
    scored = [(loss(r), r) for r in (_recipe(f, 0) for f in starts)]
    while len(scored) < population:
        scored.append(_scored(loss, _mutated(scored[len(scored) % 3][1], scale, rng)))
    for _ in range(generations):
        best = sorted(scored, key=lambda pair: pair[0])[: population // 2]
        scored = list(best)
        while len(scored) < population:
            mother, father = (best[k][1] for k in rng.choice(len(best), 2, replace=False))
            scored.append(_scored(loss, _mutated(_crossed(mother, father, rng), scale, rng)))
    return min(scored, key=lambda pair: pair[0])[1]


def _scored(loss: Callable[[LongRoPE], float], recipe: LongRoPE) -> tuple[float, LongRoPE]:
    return loss(recipe), recipe


def _recipe(factors: np.ndarray, kept: int) -> LongRoPE:
    told = tuple(np.maximum.accumulate(factors).tolist())
    return LongRoPE(short_factors=told, long_factors=told, kept=kept)


def _mutated(recipe: LongRoPE, scale: float, rng: np.random.Generator) -> LongRoPE:
    """A third of the factors times about 1.1, and other first tokens."""
    factors = np.array(recipe.long_factors)
    drawn = np.exp(0.1 * rng.standard_normal(len(factors)))
    factors = np.where(rng.random(len(factors)) < 1 / 3, factors * drawn, factors)
    kept = int(rng.choice((0, 1, 2, 4, 8, 16))) if rng.random() < 1 / 3 else recipe.kept
    return _recipe(factors.clip(1, scale), kept)


def _crossed(mother: LongRoPE, father: LongRoPE, rng: np.random.Generator) -> LongRoPE:
    """Each factor, and the first tokens, from one of two."""
    mothers = rng.random(len(mother.long_factors)) < 0.5
    factors = np.where(mothers, mother.long_factors, father.long_factors)
    return replace(_recipe(factors, 0), kept=rng.choice((mother.kept, father.kept)).item())
