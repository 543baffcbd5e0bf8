"""Boosted trees (histograms, scikit-learn), bagged for their doubt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.objective import Costs
from hwnas.engine.rankers._description import Description, Warp, checked
from hwnas.engine.rankers._ensemble import Spread, bootstrap, spread_factor

MEMBERS = 6


class Boosting:
    """Six gradient-boosted forests, each on a bootstrap of the rows."""

    def __init__(self, genes: Sequence[Gene], *, rng: np.random.Generator, covariates: Sequence[Costs] = ()) -> None:
        self._description = Description.of(genes, covariates)
        self._rng = rng
        self._members: list[Any] = []  # scikit-learn ships no types

    def fit(self, X: IntArray, values: FloatArray) -> Self:
        """Each member on its own bootstrap, 0.1 s a member."""
        from sklearn.ensemble import HistGradientBoostingRegressor

        X, values = checked(X, values, self._description)
        self._warp = Warp.of(values)
        target, columns = self._warp(values), self._columns(X)
        counts = bootstrap(len(X), MEMBERS, self._rng)
        self._members = []
        for count in counts:
            drawn = np.repeat(np.arange(len(X)), count)
            member = HistGradientBoostingRegressor(
                max_iter=100,
                min_samples_leaf=4,
                max_leaf_nodes=8,
                early_stopping=False,
                random_state=int(self._rng.integers(2**31)),
            )
            self._members.append(member.fit(columns[drawn], target[drawn]))
        self._factor = spread_factor(self._predicted(columns), target, counts)
        return self

    def predict(self, X: IntArray) -> tuple[FloatArray, FloatArray]:
        """Mean and deviation, each (n,)."""
        spread = self._spread(X)
        return self._warp.moments(*spread.moments())

    def draw(self, X: IntArray, n: int, rng: np.random.Generator) -> FloatArray:
        """Joint draws, (n, rows)."""
        spread = self._spread(X)
        return self._warp.inverse(spread.draw(n, rng))

    def _spread(self, X: IntArray) -> Spread:
        if not self._members:
            raise RuntimeError("this ranker has learned nothing yet: call fit first")
        return Spread(self._predicted(self._columns(X)), self._factor)

    def _predicted(self, columns: FloatArray) -> FloatArray:
        if len(columns) == 0:  # scikit-learn refuses none
            return np.zeros((len(self._members), 0))
        return np.stack([member.predict(columns) for member in self._members])

    def _columns(self, X: IntArray) -> FloatArray:
        # one split tells the larger options from the smaller, or one option from all others
        return self._description.columns(X)


ranker = Boosting
