"""Latency from descriptions of networks or blocks, from few measurements: Gaussian processes averaged by evidence.

With 10 to 300 measurements no single strength of regularisation can be chosen safely, so none is: every combination of
a small grid (how much each description matters, how noisy the latencies are) is solved in closed form and the
predictions are averaged with their marginal likelihoods as weights (Rasmussen and Williams, Gaussian Processes for
Machine Learning, 2006, eq. 2.30; left-out predictions eq. 5.12).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from hwnas.latency.predictors import FloatArray

_NOISES = np.logspace(-4, 1, 11)  # variance of the noise over the variance of the first view
_CONSTANT = 100.0  # prior variance of the mean level, which the data then decide alone
_NEGLIGIBLE = 1e-4  # share of the evidence below which a combination is not worth its time


@dataclass(frozen=True, slots=True)
class View:
    """One description of the networks: how its columns are compared, and how much it may matter."""

    weights: tuple[float, ...]  # prior variances tried, beside those of the other views
    length: float | None = None  # None: linear; else an RBF of this length, in deviations of the columns
    scaled: bool = True  # columns divided by their deviation; indicators keep theirs


COSTS = View((1.0,))
PARTS = View((0.0, 0.03, 0.1, 0.3, 1.0, 3.0), scaled=False)
CURVED = View((0.0, 0.1, 1.0), length=2.0)


@dataclass(frozen=True, slots=True)
class _Scaled:
    """A view's training rows, centred and scaled, with the factor that makes their mean variance 1."""

    view: View
    centre: FloatArray
    scale: FloatArray
    rows: FloatArray
    factor: float

    @classmethod
    def of(cls, view: View, rows: FloatArray) -> _Scaled:
        centre = rows.mean(0)
        scale = np.ones(rows.shape[1])
        if view.scaled:
            deviation = rows.std(0)
            # a column that never varied says nothing: it is dropped
            varies = deviation > 1e-9 * np.abs(rows).max(0, initial=1e-300)
            scale = np.where(varies, deviation, np.inf)
        z = (rows - centre) / scale
        variance = float((z**2).sum(1).mean())
        return cls(view, centre, scale, z, 1 / variance if variance > 1e-12 else 0.0)

    def against(self, rows: FloatArray) -> FloatArray:
        """Covariances of `rows` with the training rows, (rows, n)."""
        z = (rows - self.centre) / self.scale
        inner = z @ self.rows.T
        if self.view.length is None:
            linear: FloatArray = self.factor * inner
            return linear
        squared = (z**2).sum(1)[:, None] + (self.rows**2).sum(1) - 2 * inner
        smooth: FloatArray = np.exp(-0.5 * np.maximum(squared, 0) * self.factor / self.view.length**2)
        return smooth

    def variances(self, rows: FloatArray) -> FloatArray:
        """Prior variance of each of `rows`, (rows,)."""
        if self.view.length is not None:
            return np.ones(len(rows))
        z = (rows - self.centre) / self.scale
        variances: FloatArray = self.factor * (z**2).sum(1)
        return variances


@dataclass(frozen=True, slots=True)
class _Solved:
    """One combination of the grid, solved: K + noise = V diag(e) V', in units where the noise is even."""

    weights: tuple[float, ...]
    vectors: FloatArray  # V, (n, n)
    values: FloatArray  # e, (n,)
    solution: FloatArray  # (K + noise)^-1 target, (n,)
    noise: float
    variance: float  # of the process, in squared units of the target
    share: float  # of the evidence

    def left_out(self, even: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Errors of the prediction of each row from the others, and their variances, in units of even noise."""
        precision = (self.vectors**2 / self.values).sum(1)
        return (self.vectors @ ((self.vectors.T @ even) / self.values)) / precision, self.variance / precision


class Regression:
    """Latencies as a sum of views, each a linear or a smooth function of its columns, with their uncertainty."""

    def __init__(self, views: Sequence[View] = (COSTS, PARTS, CURVED), *, log: bool = False) -> None:
        """`log`: latencies multiply rather than add; otherwise noise grows with the latency."""
        self._views = tuple(views)
        self._log = log

    def fit(self, inputs: Sequence[FloatArray], latency_ms: FloatArray) -> Regression:
        """Learn from latencies in ms, (n,), n >= 2, of rows described by one matrix (n, columns) a view.

        Returns itself. Raises ValueError for latencies that are not positive.
        """
        latency_ms = np.asarray(latency_ms, dtype=np.float64)
        if len(latency_ms) < 2 or not np.all(latency_ms > 0):
            smallest = min(latency_ms, default=0)
            raise ValueError(f"{len(latency_ms)} latencies, the smallest {smallest} ms: give 2 or more, all above 0")
        self._level = float(latency_ms.mean())
        self._floor = float(latency_ms.min()) / 10  # a line may fall below zero far from the data, a latency may not
        self._scaled = [_Scaled.of(view, rows) for view, rows in zip(self._views, inputs, strict=True)]
        self._target = np.log(latency_ms) if self._log else latency_ms / self._level
        # divided by this, every row has the same noise: relative for latencies, absolute for their logarithms
        self._spread = np.ones(len(latency_ms)) if self._log else latency_ms / self._level
        grams = [each.against(rows) for each, rows in zip(self._scaled, inputs, strict=True)]
        self._solved = self._solve(grams)
        return self

    def predict(self, inputs: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
        """(mean, standard deviation) in ms of what would be measured, each (rows,); noise is part of it."""
        means, stds = self._target_of(inputs)
        if self._log:
            return np.exp(means), np.exp(means) * stds
        return np.maximum(means * self._level, self._floor), stds * self._level

    def predict_log(self, inputs: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
        """(mean, standard deviation) of the logarithm of the latency in ms, each (rows,)."""
        means, stds = self._target_of(inputs)
        if self._log:
            return means, stds
        means = np.maximum(means, self._floor / self._level)
        return np.log(means * self._level), stds / means

    def left_out(self) -> tuple[FloatArray, FloatArray]:
        """Each training row predicted from the others: (relative errors, their deviations), each (n,).

        Of logarithms where `log`.
        """
        even = self._target / self._spread
        errors, seconds = np.zeros(len(even)), np.zeros(len(even))
        for solved in self._solved:
            error, variance = solved.left_out(even)
            errors += solved.share * error
            seconds += solved.share * (variance + error**2)
        # measured - predicted -> predicted - measured
        return -errors, np.sqrt(np.maximum(seconds - errors**2, 1e-300))

    def _solve(self, grams: Sequence[FloatArray]) -> list[_Solved]:
        n = len(self._target)
        even = self._target / self._spread
        found: list[_Solved] = []
        evidence = []
        for weights in product(*(view.weights for view in self._views)):
            parts = (w * gram for w, gram in zip(weights, grams, strict=True) if w)
            covariance = sum(parts, np.full((n, n), _CONSTANT))
            values, vectors = np.linalg.eigh(covariance / np.outer(self._spread, self._spread))
            turned = vectors.T @ even
            for noise in _NOISES:
                noisy = np.maximum(values, 0) + noise
                squares = max(float((turned**2 / noisy).sum()), 1e-300)
                evidence.append(-n / 2 * np.log(squares) - np.log(noisy).sum() / 2)
                # the scale is learned too: predictions follow Student's t with n degrees, of this variance
                variance = squares / max(n - 2, 1)
                solution = vectors @ (turned / noisy) / self._spread
                found.append(_Solved(weights, vectors, noisy, solution, float(noise), variance, 0.0))
        shares = np.exp(np.array(evidence) - max(evidence))
        kept = np.flatnonzero(shares > _NEGLIGIBLE * shares.sum())
        total = shares[kept].sum()
        return [
            _Solved(s.weights, s.vectors, s.values, s.solution, s.noise, s.variance, float(shares[i] / total))
            for i in kept
            for s in (found[i],)
        ]

    def _target_of(self, inputs: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
        grams = [each.against(rows) for each, rows in zip(self._scaled, inputs, strict=True)]
        priors = [each.variances(rows) for each, rows in zip(self._scaled, inputs, strict=True)]
        means, seconds = np.zeros(len(inputs[0])), np.zeros(len(inputs[0]))
        for solved in self._solved:
            with_data = sum((w * g for w, g in zip(solved.weights, grams, strict=True) if w), _CONSTANT + 0 * grams[0])
            alone = sum((w * p for w, p in zip(solved.weights, priors, strict=True)), np.full(len(means), _CONSTANT))
            mean = with_data @ solved.solution
            known = (((with_data / self._spread) @ solved.vectors) ** 2 / solved.values).sum(1)
            spread = 1.0 if self._log else mean
            variance = solved.variance * (np.maximum(alone - known, 0) + solved.noise * spread**2)
            means += solved.share * mean
            seconds += solved.share * (variance + mean**2)
        return means, np.sqrt(np.maximum(seconds - means**2, 1e-300))
