"""A Gaussian process over genes: a linear and a smooth part, one relevance a gene, fitted by marginal likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.linalg import cho_solve, cholesky
from scipy.optimize import minimize

from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.objective import Costs
from hwnas.engine.rankers._description import Description, Warp, checked
from hwnas.engine.rankers._gaussian import Posterior

LEVEL = 1.0  # prior variance of the level, beside 1 of the smooth part
FITTED = 400  # rows that hyperparameters are fitted on: the likelihood costs rows cubed, the posterior only once
FIRST, LATER = 60, 20  # steps of L-BFGS from nowhere, and from an earlier fit
GROWTH = 1.1  # times as many rows, and hyperparameters are fitted again; until then rows are only added
CHUNK = 4096  # rows predicted at a time, so that covariances fit in a cache and 1e5 rows in memory
RELEVANCE = 1.0  # prior deviation of the logarithm of a gene's relevance
NOISE = (np.log(1e-6), np.log(1e-3), np.log(1.0))  # least, expected, most noise variance, logarithms


@dataclass(frozen=True, slots=True)
class _Columns:
    """How rows become columns, and which hyperparameters weigh each: log v = matrix @ hyperparameters + base."""

    description: Description
    centre: FloatArray  # (columns,)
    base: FloatArray  # (columns,) log weights at which each family of columns has variance 1
    matrix: FloatArray  # (columns, hyperparameters)

    @classmethod
    def of(cls, description: Description, X: IntArray) -> _Columns:
        widths, costs = description.widths, description.costs(X)
        genes = len(widths)
        families = [(np.repeat(np.arange(genes), widths), 0), (np.arange(genes), 1)]
        families += [(np.array([-1]), 2 + i) for i in range(costs.shape[1])]
        matrix = np.zeros((int(widths.sum()) + genes + costs.shape[1], genes + 2 + costs.shape[1]))
        row = 0
        for owners, family in families:
            for owner in owners:
                matrix[row, genes + family] = 1
                if owner >= 0:
                    matrix[row, owner] = 1
                row += 1
        raw = description.columns(X)
        variance = raw.var(0)
        family_of = matrix[:, genes:].argmax(1)
        total = np.bincount(family_of, weights=variance, minlength=matrix.shape[1] - genes)
        base = -np.log(np.where(total > 1e-30 * (1 + np.abs(raw).max()) ** 2, total, np.inf))[family_of]
        return cls(description, raw.mean(0), np.maximum(base, -700), matrix)

    def __call__(self, X: IntArray) -> FloatArray:
        """Centred columns, (n, columns)."""
        return self.description.columns(X) - self.centre

    def weights(self, hyperparameters: FloatArray) -> FloatArray:
        """Weight of each squared column, (columns,)."""
        weights: FloatArray = np.exp(self.matrix @ hyperparameters[:-2] + self.base)
        return weights


class GaussianProcess:
    """Covariance: level + linear + exp(-distance / 2), both over columns weighed gene by gene.

    A long smooth part is nearly additive with weak pairs, a short one is a lookup; the likelihood decides, gene by
    gene. Weights have log-normal priors, or 50 rows would find among 45 genes what is not there.
    """

    def __init__(self, genes: Sequence[Gene], *, rng: np.random.Generator, covariates: Sequence[Costs] = ()) -> None:  # noqa: ARG002
        self._description = Description.of(genes, covariates)
        self._hyperparameters: FloatArray | None = None
        self._fitted_on = 0
        self._posterior: Posterior | None = None

    def fit(self, X: IntArray, values: FloatArray) -> Self:
        """Hyperparameters by L-BFGS from those of the last fit; of 1,000 rows in about 2 s, predicted from all."""
        X, values = checked(X, values, self._description)
        self._warp = Warp.of(values)
        target = self._warp(values)
        if self._hyperparameters is None or not self._fitted_on < len(X) < GROWTH * self._fitted_on:
            self._columns = _Columns.of(self._description, X)
            self._hyperparameters = _likeliest(self._columns, self._columns(X), target, self._hyperparameters)
            self._fitted_on = len(X)
        rows = self._columns(X)
        self._scale = np.sqrt(self._columns.weights(self._hyperparameters))
        self._linear = float(np.exp(self._hyperparameters[-2]))
        self._rows = rows * self._scale
        covariance = self._covariance(self._rows, self._rows)
        self._posterior = Posterior.of(covariance, float(np.exp(self._hyperparameters[-1])), target)
        return self

    def predict(self, X: IntArray) -> tuple[FloatArray, FloatArray]:
        """Mean and deviation, each (n,)."""
        posterior = self._fitted()
        parts = [self._moments(posterior, X[i : i + CHUNK]) for i in range(0, len(X), CHUNK)]
        mean, std = (np.concatenate([part[k] for part in parts]) if parts else np.zeros(0) for k in (0, 1))
        return self._warp.moments(mean, std)

    def draw(self, X: IntArray, n: int, rng: np.random.Generator) -> FloatArray:
        """Joint draws of the process, (n, rows); time grows with rows cubed."""
        posterior = self._fitted()
        rows = self._weighed(X)
        cross = self._covariance(rows, self._rows)
        return self._warp.inverse(posterior.draw(cross, self._covariance(rows, rows), n, rng))

    def _moments(self, posterior: Posterior, X: IntArray) -> tuple[FloatArray, FloatArray]:
        rows = self._weighed(X)
        prior = LEVEL + 1 + self._linear * (rows**2).sum(1)
        return posterior.moments(self._covariance(rows, self._rows), prior)

    def _fitted(self) -> Posterior:
        if self._posterior is None:
            raise RuntimeError("this ranker has learned nothing yet: call fit first")
        return self._posterior

    def _weighed(self, X: IntArray) -> FloatArray:
        weighed: FloatArray = self._columns(X) * self._scale
        return weighed

    def _covariance(self, A: FloatArray, B: FloatArray) -> FloatArray:
        inner = A @ B.T
        squared = (A**2).sum(1)[:, None] + (B**2).sum(1) - 2 * inner
        covariance: FloatArray = LEVEL + self._linear * inner + np.exp(-0.5 * np.maximum(squared, 0))
        return covariance


def _likeliest(columns: _Columns, rows: FloatArray, target: FloatArray, start: FloatArray | None) -> FloatArray:
    chosen = _telling(target, FITTED)
    size = columns.matrix.shape[1] + 2
    found = minimize(
        _surprise,
        np.concatenate([np.zeros(size - 1), [NOISE[1]]]) if start is None else start,
        args=(rows[chosen], target[chosen], columns),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-8.0, 8.0)] * (size - 1) + [(NOISE[0], NOISE[2])],
        options={"maxiter": FIRST if start is None else LATER},
    )
    return np.asarray(found.x, dtype=np.float64)


def _telling(target: FloatArray, n: int) -> IntArray:
    """Indices of `n` rows, or all: the better half of them the best there are, the others evenly over the rest."""
    order = np.argsort(target, kind="stable")
    if len(order) <= n:
        return np.arange(len(order))
    best = n // 2
    return np.sort(np.concatenate([order[:best], order[np.linspace(best, len(order) - 1, n - best).astype(int)]]))


def _surprise(
    hyperparameters: FloatArray, rows: FloatArray, target: FloatArray, columns: _Columns
) -> tuple[float, FloatArray]:
    """Negative log posterior of the hyperparameters, and its gradient.

    The scale of the process is integrated out (as in `Posterior`). Gradient: Rasmussen and Williams, 5.4.1, with the
    products over all columns at once.
    """
    n = len(target)
    weights = columns.weights(hyperparameters)
    linear, noise = np.exp(hyperparameters[-2]), np.exp(hyperparameters[-1])
    weighed = rows * np.sqrt(weights)
    inner = weighed @ weighed.T
    lengths = np.diag(inner)
    smooth = np.exp(-0.5 * np.maximum(lengths[:, None] + lengths - 2 * inner, 0))
    try:
        factor = cholesky(LEVEL + linear * inner + smooth + noise * np.eye(n), lower=True)
    except np.linalg.LinAlgError:
        return 1e25, np.zeros_like(hyperparameters)
    solution = cho_solve((factor, True), target)
    fit = float(target @ solution) + 1
    prior_mean = np.zeros_like(hyperparameters)
    prior_mean[-1] = NOISE[1]
    prior_std = np.full_like(hyperparameters, 2.0)
    prior_std[: len(columns.description.widths)] = RELEVANCE
    prior_std[-1] = 3.0
    away = (hyperparameters - prior_mean) / prior_std
    surprise = (n + 1) / 2 * np.log(fit) + np.log(np.diag(factor)).sum() + (away**2).sum() / 2

    left = cho_solve((factor, True), np.eye(n)) - (n + 1) / fit * np.outer(solution, solution)
    curved = left * smooth
    along = ((left @ rows) * rows).sum(0)
    apart = curved.sum(1) @ rows**2 - ((curved @ rows) * rows).sum(0)
    by_column = weights * (linear * along - apart) / 2
    gradient = np.concatenate(
        [by_column @ columns.matrix, [linear * float((left * inner).sum()) / 2, noise * float(np.trace(left)) / 2]]
    )
    return float(surprise), gradient + away / prior_std


ranker = GaussianProcess
