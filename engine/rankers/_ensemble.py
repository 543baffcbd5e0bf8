"""Doubt from members that saw other rows: their spread, scaled to the errors on rows they did not see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwnas.engine.architecture import FloatArray, IntArray


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
