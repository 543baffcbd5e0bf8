"""Latencies on a new device from about ten measurements and what the same networks take on other devices.

A network is described by its latencies on the references, predicted, so that their noise is averaged out, and by its
costs. Three models are mixed: a Gaussian process over all of that, a sum of references with weights that are not
negative, and costs alone, which win where no reference resembles the device. How much each description matters is
averaged over by the evidence of the probes: nothing is set by hand for a device.
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

# A new device is first of all a typical one, faster or slower, steeper or flatter: that direction is all but free, and
# what sets the references apart from each other is shrunk. The variances tried are in units of each other.
_TYPICAL = View((10.0,), scaled=False)
_DEVIATIONS = View((0.0, 0.01, 0.1, 1.0), scaled=False)
_COSTS = View((0.0, 0.01, 0.1), scaled=False)
_CURVED = View((0.0, 0.003, 0.03, 0.3), length=1.0, scaled=False)
_VIEWS = (_TYPICAL, _DEVIATIONS, _COSTS, _CURVED)
_NNLS_SMALLEST = 1e-3  # of the mean latency: what no sum of references may fall below


@dataclass(frozen=True, slots=True)
class _Columns:
    """Descriptions of networks, each (networks, columns); all but `shares` are centred logarithms."""

    typical: FloatArray  # mean latency over the references, one column
    deviations: FloatArray  # what each reference takes beyond that
    costs: FloatArray
    shares: FloatArray  # latencies over the pool's means, with a column of ones, (networks, references + 1)

    @property
    def views(self) -> list[FloatArray]:
        """One matrix a view of `_VIEWS`."""
        return [self.typical, self.deviations, self.costs, np.hstack([self.deviations, self.costs])]


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
        logarithms = np.log(references_ms / self._means)
        self._apart = _Standard.of(logarithms)(logarithms)
        self._centre = logarithms.mean(0)
        deviations = logarithms - self._centre
        deviations = deviations - deviations.mean(1, keepdims=True)
        # together of variance 1, as the costs are, and each in proportion: a reference that is typical says little more
        width = float(np.sqrt((deviations**2).sum(1).mean()))
        self._width = width if width > 1e-9 else np.inf
        self._costs = _Standard.of(_log(costs / self._cost_means))

    def probes(self, n: int, *, taken: Sequence[int] = ()) -> IntArray:
        """Rows of the pool to measure next, (n,): the farthest from all others chosen, in logarithms of latencies.

        The first is the most ordinary network (Gonzalez, Theoretical Computer Science 38, 1985, for the rest).
        """
        rows = self._apart
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
        self._process = Regression(_VIEWS, log=True).fit(probes.views, latency_ms)
        self._costs_alone = Regression((View((1.0,), scaled=False),), log=True).fit([probes.costs], latency_ms)
        self._non_negative = _non_negative(probes.shares, latency_ms)
        kept = [np.delete(np.arange(len(latency_ms)), i) for i in range(len(latency_ms))]
        left_out = np.stack(
            [
                np.expm1(self._process.left_out()[0]),
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
        process, spread = self._process.predict_log(columns.views)
        summed = columns.shares @ self._non_negative
        floor = _NNLS_SMALLEST * float(np.mean(self._non_negative.sum()))
        alone, _ = self._costs_alone.predict_log([columns.costs])
        models = np.stack([process, np.log(np.maximum(summed, floor)), alone])
        mean = self.shares @ models
        # where the models disagree none is known to be right; nothing is known better than the probes left out
        disagreement = self.shares @ (models - mean) ** 2
        seen = float(np.mean(self.left_out_errors**2))
        relative = np.sqrt(np.maximum(disagreement + np.minimum(spread**2, seen), seen))
        return np.exp(mean), np.exp(mean) * relative

    def _columns(self, references_ms: FloatArray, costs: FloatArray) -> _Columns:
        ratios = np.asarray(references_ms, dtype=np.float64) / self._means
        logarithms = np.log(ratios) - self._centre
        typical = logarithms.mean(1, keepdims=True)
        charged = self._costs(_log(np.asarray(costs, dtype=np.float64) / self._cost_means))
        shares = np.hstack([ratios, np.ones((len(ratios), 1))])
        return _Columns(typical, (logarithms - typical) / self._width, charged, shares)


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


def _log(costs: FloatArray) -> FloatArray:
    """Logarithms of costs over their mean, where none at all is a hundredth of it."""
    return np.log(costs + 0.01)


def _non_negative(shares: FloatArray, latency_ms: FloatArray) -> FloatArray:
    """ms of each reference, none negative, of least relative error (Lawson and Hanson, 1974)."""
    solution, _ = nnls(shares / latency_ms[:, None], np.ones(len(latency_ms)))
    return np.asarray(solution, dtype=np.float64)
