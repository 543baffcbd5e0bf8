"""Doubt from members that saw other rows: their spread, scaled to the errors on rows they did not see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.objective import Costs
from hwnas.engine.rankers import Constructor, Ranker
from hwnas.engine.rankers._description import Description, Warp, checked

MEMBERS = 6

Predict = Callable[[FloatArray], FloatArray]  # columns (rows, columns) -> (members, rows)
# columns, targets (rows,), how often each member sees each row (members, rows), chance -> what was learned
Learn = Callable[[FloatArray, FloatArray, IntArray, np.random.Generator], Predict]


def bootstrap(rows: int, members: int, rng: np.random.Generator) -> IntArray:
    """How often each member sees each row, (members, rows); every member sees `rows` of them."""
    return rng.multinomial(rows, np.full(rows, 1 / rows), size=members).astype(np.int64)


def spread_factor(predicted: FloatArray, target: FloatArray, counts: IntArray) -> float:
    """What the members' spread is to be multiplied by so that errors on rows that were left out are of its size.

    `predicted` (members, rows) and `counts` (members, rows) as drawn. 1 where too few rows were left out twice.
    """
    errors, variances = [], []
    for row in np.flatnonzero((counts == 0).sum(0) >= 2):
        seen_by_none = predicted[counts[:, row] == 0, row]
        errors.append((seen_by_none.mean() - target[row]) ** 2)
        variances.append(seen_by_none.var(ddof=1))
    if len(errors) < 10 or not np.mean(variances) > 0:
        return 1.0
    # from half to four times: a dozen errors say no more than that
    return float(np.clip(np.sqrt(np.mean(errors) / np.mean(variances)), 0.5, 4.0))


@dataclass(frozen=True, slots=True)
class Spread:
    """Predictions of all members as a distribution."""

    predicted: FloatArray  # (members, rows)
    factor: float

    def moments(self) -> tuple[FloatArray, FloatArray]:
        """(mean, deviation), each (rows,)."""
        return self.predicted.mean(0), self.factor * self.predicted.std(0, ddof=1)

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """`n` normal draws with the members' mean and covariance, (n, rows)."""
        mean = self.predicted.mean(0)
        away = (self.predicted - mean) / np.sqrt(len(self.predicted) - 1)
        drawn: FloatArray = mean + self.factor * rng.standard_normal((n, len(away))) @ away
        return drawn


def bagged(learn: Learn) -> Constructor:
    """The constructor of rankers that are six of what `learn` makes, each on its own bootstrap of the rows."""

    def construct(genes: Sequence[Gene], *, rng: np.random.Generator, covariates: Sequence[Costs] = ()) -> Ranker:
        return _Bagged(learn, Description.of(genes, covariates), rng)

    return construct


class _Bagged:
    """A ranker whose doubt is that of its members."""

    def __init__(self, learn: Learn, description: Description, rng: np.random.Generator) -> None:
        self._learn = learn
        self._description = description
        self._rng = rng
        self._learned: tuple[Predict, Warp, float] | None = None

    def fit(self, X: IntArray, values: FloatArray) -> Self:
        """Each member anew."""
        X, values = checked(X, values, self._description)
        warp = Warp.of(values)
        target, columns = warp(values), self._description.columns(X)
        counts = bootstrap(len(X), MEMBERS, self._rng)
        predict = self._learn(columns, target, counts, self._rng)
        self._learned = predict, warp, spread_factor(predict(columns), target, counts)
        return self

    def predict(self, X: IntArray) -> tuple[FloatArray, FloatArray]:
        """Mean and deviation, each (n,)."""
        spread, warp = self._spread(X)
        return warp.moments(*spread.moments())

    def draw(self, X: IntArray, n: int, rng: np.random.Generator) -> FloatArray:
        """Joint draws, (n, rows)."""
        spread, warp = self._spread(X)
        return warp.inverse(spread.draw(n, rng))

    def _spread(self, X: IntArray) -> tuple[Spread, Warp]:
        if self._learned is None:
            raise RuntimeError("this ranker has learned nothing yet: call fit first")
        predict, warp, factor = self._learned
        return Spread(predict(self._description.columns(X)), factor), warp
