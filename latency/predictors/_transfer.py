"""Latencies on a new device from about ten measurements and what the same networks take on other devices.

A network is described by its latencies on the references, predicted, so that their noise is averaged out, and by its
costs. Four models are mixed: where the references resemble the device the first three win, where none does the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from hwnas.latency.predictors import FloatArray
from hwnas.latency.predictors._regression import Regression, View

IntArray = NDArray[np.int64]

_REFERENCES = View((1.0,), scaled=False)
_COSTS = View((0.0, 0.1, 0.3, 1.0), scaled=False)
_BOTH = View((0.0, 0.1, 0.3), length=1.0, scaled=False)
_NNLS_SMALLEST = 1e-3  # of the mean latency: what no sum of references may fall below


@dataclass(frozen=True, slots=True)
class _Columns:
    """Standardised descriptions of networks: of their latencies and costs, and of the logarithms of both."""

    linear: tuple[FloatArray, FloatArray]
    logarithms: tuple[FloatArray, FloatArray]
    shares: FloatArray  # latencies over the pool's means, with a column of ones, (networks, references + 1)


class Transfer:
    """A device described by its probes: networks measured on it whose latencies on the references are predicted."""

    def __init__(self, references_ms: FloatArray, costs: FloatArray) -> None:
        """Rows are the pool of networks that may be probed or predicted.

        `references_ms` are their latencies on other devices in ms, (pool, references); `costs` are sums such as MACs,
        (pool, costs). Raises ValueError for latencies that are not positive or costs below 0.
        """
        references_ms, costs = np.asarray(references_ms, dtype=np.float64), np.asarray(costs, dtype=np.float64)
        if len(references_ms) < 2 or not np.all(references_ms > 0) or np.any(costs < 0):
            raise ValueError("give 2 or more networks with latencies above 0 on every reference and costs not below 0")
        self._means = references_ms.mean(0)
        self._cost_means = np.maximum(costs.mean(0), 1e-300)
        self._linear = [_Standard.of(references_ms / self._means), _Standard.of(costs / self._cost_means)]
        self._logs = [_Standard.of(np.log(references_ms / self._means)), _Standard.of(_log(costs / self._cost_means))]
        self._pool = self._columns(references_ms, costs)

    def probes(self, n: int, *, taken: Sequence[int] = ()) -> IntArray:
        """Rows of the pool to measure next, (n,): the farthest from all others chosen, in logarithms of latencies.

        The first is the most ordinary network (Gonzalez, Theoretical Computer Science 38, 1985, for the rest).
        """
        rows = self._pool.logarithms[0]
        if len(taken) + n > len(rows):
            raise ValueError(f"{n} probes beside {len(taken)} taken do not fit in a pool of {len(rows)} networks")
        distances = np.full(len(rows), np.inf)
        for i in taken:
            distances = np.minimum(distances, ((rows - rows[i]) ** 2).sum(1))
        chosen: list[int] = []
        while len(chosen) < n:
            nearest_mean = not chosen and not len(taken)
            i = int(((rows - rows.mean(0)) ** 2).sum(1).argmin() if nearest_mean else distances.argmax())
            chosen.append(i)
            distances = np.minimum(distances, ((rows - rows[i]) ** 2).sum(1))
        return np.array(chosen, dtype=np.int64)

    def fit(self, references_ms: FloatArray, costs: FloatArray, latency_ms: FloatArray) -> Transfer:
        """Learn from probes measured in ms, (probes,), 3 or more; returns itself. Raises ValueError."""
        latency_ms = np.asarray(latency_ms, dtype=np.float64)
        if len(latency_ms) < 3 or not np.all(latency_ms > 0):
            raise ValueError(f"{len(latency_ms)} probes: measure 3 or more, each above 0 ms")
        probes = self._columns(references_ms, costs)
        views = (_REFERENCES, _COSTS, _BOTH)
        self._logarithmic = Regression(views, log=True).fit(_views(probes.logarithms), latency_ms)
        self._additive = Regression(views).fit(_views(probes.linear), latency_ms)
        self._costs_alone = Regression((View((1.0,), scaled=False),), log=True).fit([probes.logarithms[1]], latency_ms)
        self._non_negative = _non_negative(probes.shares, latency_ms)
        kept = [np.delete(np.arange(len(latency_ms)), i) for i in range(len(latency_ms))]
        left_out = np.stack(
            [
                np.expm1(self._logarithmic.left_out()[0]),
                self._additive.left_out()[0],
                np.array(
                    [
                        probes.shares[i] @ _non_negative(probes.shares[rows], latency_ms[rows]) / latency_ms[i] - 1
                        for i, rows in enumerate(kept)
                    ]
                ),
                np.expm1(self._costs_alone.left_out()[0]),
            ]
        )  # (models, probes)
        left_out = np.clip(left_out, _NNLS_SMALLEST - 1, None)
        mean_square = (left_out**2).mean(1)
        trust = np.maximum(mean_square, 1e-12) ** -2.0  # squared, so that a model twice as wrong has a 16th to say
        self.shares = trust / trust.sum()
        mixed = np.expm1(self.shares @ np.log1p(left_out))
        self.left_out_errors = mixed  # relative, (probes,)
        return self

    def predict(self, references_ms: FloatArray, costs: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(mean, standard deviation) in ms, each (networks,): the geometric mean of the models, by their shares."""
        columns = self._columns(references_ms, costs)
        logarithmic, spread = self._logarithmic.predict_log(_views(columns.logarithms))
        additive, _ = self._additive.predict_log(_views(columns.linear))
        summed = columns.shares @ self._non_negative
        floor = _NNLS_SMALLEST * float(np.mean(self._non_negative.sum()))
        alone, _ = self._costs_alone.predict_log([columns.logarithms[1]])
        models = np.stack([logarithmic, additive, np.log(np.maximum(summed, floor)), alone])
        mean = self.shares @ models
        # where the models disagree none is known to be right; nothing is known better than the probes left out
        disagreement = self.shares @ (models - mean) ** 2
        seen = float(np.mean(self.left_out_errors**2))
        relative = np.sqrt(np.maximum(disagreement + np.minimum(spread**2, seen), seen))
        return np.exp(mean), np.exp(mean) * relative

    def _columns(self, references_ms: FloatArray, costs: FloatArray) -> _Columns:
        ratios = np.asarray(references_ms, dtype=np.float64) / self._means
        charged = np.asarray(costs, dtype=np.float64) / self._cost_means
        linear = self._linear[0](ratios), self._linear[1](charged)
        logarithms = self._logs[0](np.log(ratios)), self._logs[1](_log(charged))
        return _Columns(linear, logarithms, np.hstack([ratios, np.ones((len(ratios), 1))]))


@dataclass(frozen=True, slots=True)
class _Standard:
    """Columns made comparable: centred, of deviation 1, and together of variance 1."""

    centre: FloatArray
    scale: FloatArray

    @classmethod
    def of(cls, rows: FloatArray) -> _Standard:
        deviation = rows.std(0)
        return cls(rows.mean(0), np.where(deviation > 1e-9, deviation, np.inf) * np.sqrt(rows.shape[1]))

    def __call__(self, rows: FloatArray) -> FloatArray:
        scaled: FloatArray = (rows - self.centre) / self.scale
        return scaled


def _views(columns: tuple[FloatArray, FloatArray]) -> list[FloatArray]:
    return [*columns, np.hstack(columns)]


def _log(costs: FloatArray) -> FloatArray:
    """Logarithms of costs over their mean, where none at all is a hundredth of it."""
    return np.log(costs + 0.01)


def _non_negative(shares: FloatArray, latency_ms: FloatArray) -> FloatArray:
    """ms of each reference, none negative, of least relative error (Lawson and Hanson, 1974)."""
    solution, _ = nnls(shares / latency_ms[:, None], np.ones(len(latency_ms)))
    return np.asarray(solution, dtype=np.float64)
