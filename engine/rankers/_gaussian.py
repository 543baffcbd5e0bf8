"""What Gaussian processes know after n values: moments and joint draws from covariances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

from hwnas.engine.architecture import FloatArray


@dataclass(frozen=True, slots=True)
class Posterior:
    """A Gaussian process given values. Covariances come in units in which `variance` is their scale."""

    factor: FloatArray  # lower Cholesky factor of the covariance with noise, (n, n)
    solution: FloatArray  # (covariance + noise)^-1 values, (n,)
    variance: float

    @classmethod
    def of(cls, covariance: FloatArray, noise: float, values: FloatArray) -> Posterior:
        """The posterior of values (n,) with this prior covariance (n, n) and noise variance, in the same units.

        The scale is estimated from the values: Rasmussen and Williams, Gaussian Processes for Machine Learning, 5.4.
        """
        n = len(values)
        factor = cholesky(covariance + noise * np.eye(n), lower=True)
        solution = cho_solve((factor, True), values)
        # one more value of variance 1: a single row, or rows all equal, must not claim to know everything
        return cls(factor, solution, float((values @ solution + 1) / (n + 1)))

    def moments(self, cross: FloatArray, prior: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(mean, deviation) of rows, each (rows,), of their covariances (rows, n) and prior variances (rows,)."""
        known = (solve_triangular(self.factor, cross.T, lower=True) ** 2).sum(0)
        return cross @ self.solution, np.sqrt(self.variance * np.maximum(prior - known, 0))

    def draw(self, cross: FloatArray, within: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
        """`n` joint draws, (n, rows), of rows with these covariances (rows, n) and among themselves (rows, rows)."""
        solved = solve_triangular(self.factor, cross.T, lower=True)
        left = within - solved.T @ solved
        values, vectors = np.linalg.eigh((left + left.T) / 2)
        root = vectors * np.sqrt(self.variance * np.maximum(values, 0))
        drawn: FloatArray = cross @ self.solution + rng.standard_normal((n, len(cross))) @ root.T
        return drawn
