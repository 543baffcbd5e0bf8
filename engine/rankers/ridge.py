"""Ridge regression on every option and every pair of options."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Self

import numpy as np

from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.objective import Costs
from hwnas.engine.rankers._description import Description, Warp, checked
from hwnas.engine.rankers._gaussian import Posterior

PAIRS = (0.0, 0.1, 0.3, 1.0, 3.0)  # prior variance of all pairs together, beside 1 for single options
COVARIATES = (0.0, 1.0, 10.0)
NOISES = np.geomspace(1e-4, 1, 9)


class Ridge:
    """Bayesian ridge on one-hot genes and their pairwise products; penalties by the evidence.

    Solved in the rows instead of the columns, which are thousands: the inner product of one-hot rows is the number m
    of genes that agree, that of their pairs m (m - 1) / 2.
    """

    def __init__(self, genes: Sequence[Gene], *, rng: np.random.Generator, covariates: Sequence[Costs] = ()) -> None:  # noqa: ARG002
        self._description = Description.of(genes, covariates)
        self._posterior: Posterior | None = None

    def fit(self, X: IntArray, values: FloatArray) -> Self:
        """Every combination of penalties is tried; one decomposition each serves all noises."""
        X, values = checked(X, values, self._description)
        self._warp = Warp.of(values)
        target = self._warp(values)
        costs = self._description.costs(X)
        self._centre, self._scale = costs.mean(0), np.where(costs.std(0) > 0, costs.std(0), np.inf)
        self._rows = self._description.indicators(X)
        self._costs = (costs - self._centre) / self._scale
        best = np.inf
        for pairs, linear in product(PAIRS, COVARIATES if costs.shape[1] else (0.0,)):
            covariance = self._covariance(self._rows, self._costs, self._rows, self._costs, (pairs, linear))
            spectrum, vectors = np.linalg.eigh(covariance)
            turned = (vectors.T @ target) ** 2
            for noise in NOISES:
                noisy = np.maximum(spectrum, 0) + noise
                surprise = len(X) * np.log((turned / noisy).sum() + 1e-12) + np.log(noisy).sum()
                if surprise < best:
                    best, self._weights, chosen = surprise, (pairs, linear), (covariance, float(noise))
        self._posterior = Posterior.of(*chosen, target)
        return self

    def predict(self, X: IntArray) -> tuple[FloatArray, FloatArray]:
        """Mean and deviation, each (n,)."""
        posterior, rows, costs = self._seen(X)
        cross = self._covariance(rows, costs, self._rows, self._costs, self._weights)
        everything = float(self._agreement(np.array(len(self._description.widths), dtype=float), self._weights[0]))
        prior = everything + self._weights[1] * (costs**2).mean(1) if costs.shape[1] else np.full(len(X), everything)
        return self._warp.moments(*posterior.moments(cross, prior))

    def draw(self, X: IntArray, n: int, rng: np.random.Generator) -> FloatArray:
        """Joint draws of the regression's coefficients, at these rows, (n, rows)."""
        posterior, rows, costs = self._seen(X)
        cross = self._covariance(rows, costs, self._rows, self._costs, self._weights)
        within = self._covariance(rows, costs, rows, costs, self._weights)
        return self._warp.inverse(posterior.draw(cross, within, n, rng))

    def _seen(self, X: IntArray) -> tuple[Posterior, FloatArray, FloatArray]:
        if self._posterior is None:
            raise RuntimeError("this ranker has learned nothing yet: call fit first")
        costs = (self._description.costs(X) - self._centre) / self._scale
        return self._posterior, self._description.indicators(X), costs

    def _covariance(
        self, A: FloatArray, A_costs: FloatArray, B: FloatArray, B_costs: FloatArray, weights: tuple[float, float]
    ) -> FloatArray:
        covariance = self._agreement(A @ B.T, weights[0])
        return covariance + weights[1] * (A_costs @ B_costs.T) / A_costs.shape[1] if weights[1] else covariance

    def _agreement(self, same: FloatArray, pairs: float) -> FloatArray:
        genes = len(self._description.widths)
        # + 1 for the level, which the values are centred on already
        covariance: FloatArray = 1 + same / genes + pairs * same * (same - 1) / max(genes * (genes - 1), 1)
        return covariance


ranker = Ridge
