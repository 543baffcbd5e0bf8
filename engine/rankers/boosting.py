"""Boosted trees (histograms, scikit-learn), six forests that saw other rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwnas.engine.architecture import FloatArray, IntArray
from hwnas.engine.rankers._ensemble import Predict, bagged


def _learn(columns: FloatArray, target: FloatArray, counts: IntArray, rng: np.random.Generator) -> Predict:
    """Gradient-boosted trees, 0.1 s a member. One split tells larger options from smaller, or one from all others."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    members: list[Any] = []  # scikit-learn ships no types
    for count in counts:
        drawn = np.repeat(np.arange(len(columns)), count)
        member = HistGradientBoostingRegressor(
            max_iter=100,
            min_samples_leaf=4,
            max_leaf_nodes=8,
            early_stopping=False,
            random_state=int(rng.integers(2**31)),
        )
        members.append(member.fit(columns[drawn], target[drawn]))

    def predict(columns: FloatArray) -> FloatArray:
        if len(columns) == 0:  # scikit-learn refuses none
            return np.zeros((len(members), 0))
        return np.stack([member.predict(columns) for member in members])

    return predict


ranker = bagged(_learn)
