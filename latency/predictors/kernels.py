"""Latencies of blocks that were never measured, learned from the measured ones: one regressor a kind of block.

As in nn-Meter (Zhang et al., MobiSys 2021) a kind has its own regressor on shapes and costs; unlike there every
estimate has an interval, whose width is what the regressor got wrong on blocks left out of its fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from scipy.stats import norm, t

from hwnas.latency.block import Block
from hwnas.latency.predictors import FloatArray, Miss
from hwnas.latency.predictors._features import ArgumentColumns, cost_columns
from hwnas.latency.predictors._regression import Regression, View
from hwnas.latency.predictors.corrected import CorrectedSum
from hwnas.latency.table import LatencyTable

# Below this a kind has no error of its own to speak of, and all kinds share one regressor on their costs.
_ENOUGH = 8
# A kind that was never measured: estimates from the costs of other kinds are taken to be off by twice their own error.
_FOREIGN = 2.0
# The deviation is read off the interval in which a table is used, so that the two agree there.
_STD_LEVEL = 0.9

_VIEWS = (View((1.0,)), View((0.0, 0.1, 1.0, 10.0)), View((0.1, 1.0, 10.0), length=1.5))


@dataclass(frozen=True, slots=True)
class _Kind:
    """A fitted regressor on logarithms of latencies, with its standardised errors on blocks left out."""

    regression: Regression
    arguments: ArgumentColumns | None  # None: costs alone, as kinds share no arguments
    scores: FloatArray  # |error| over the deviation predicted for it, ascending, (blocks,)
    widened: float = 1.0

    @classmethod
    def of(cls, blocks: Sequence[Block], latency_ms: FloatArray, *, shared: bool) -> _Kind:
        arguments = None if shared else ArgumentColumns(blocks)
        regression = Regression(_VIEWS, log=True).fit(_inputs(blocks, arguments), latency_ms)
        errors, stds = regression.left_out()
        return cls(regression, arguments, np.sort(np.abs(errors) / stds))

    def quantile(self, level: float) -> float:
        """Deviations that hold a share `level`: the conformal quantile (Lei et al., JASA 113, 2018).

        Where there are too few blocks for one, Student's t in its place, and no less than the worst error seen.
        """
        n = len(self.scores)
        rank = ceil((n + 1) * level)
        if rank <= n:
            return float(self.scores[rank - 1])
        return max(float(t.ppf(0.5 + level / 2, max(n - 1, 1))), float(self.scores[-1]))

    def predict(self, blocks: Sequence[Block], level: float) -> tuple[FloatArray, FloatArray]:
        """(mean, half width of the interval) of logarithms of ms, each (blocks,)."""
        means, stds = self.regression.predict_log(_inputs(blocks, self.arguments))
        return means, self.widened * self.quantile(level) * stds


class KernelRegressors:
    """Estimates of blocks from the measured blocks of their kind."""

    def __init__(self, latencies_ms: Mapping[Block, float], *, device: str = "the device") -> None:
        """Raises LookupError for fewer than 2 measured blocks. Regressors are fitted when first asked for."""
        if len(latencies_ms) < 2:
            raise LookupError(
                f"{len(latencies_ms)} measured block(s) on {device!r} teach nothing about others: "
                f"run `hwnas table build --device {device}`"
            )
        self._latencies_ms = latencies_ms
        self._kinds: dict[str, _Kind] = {}
        self._shared: _Kind | None = None

    def estimate(self, blocks: Sequence[Block]) -> tuple[FloatArray, FloatArray]:
        """(mean, standard deviation) in ms, each (blocks,); the deviation is that of the 90 % interval."""
        low, high = self.interval_ms(blocks, _STD_LEVEL)
        return np.sqrt(low * high), (high - low) / 2 / float(norm.ppf(0.5 + _STD_LEVEL / 2))

    def interval_ms(self, blocks: Sequence[Block], level: float = 0.9) -> tuple[FloatArray, FloatArray]:
        """(low, high) in ms, each (blocks,): holds a share `level` of the latencies of blocks like the measured ones.

        Both are above 0; their geometric mean is the estimate.
        """
        low, high = np.empty(len(blocks)), np.empty(len(blocks))
        for factory in dict.fromkeys(block.factory for block in blocks):
            rows = [i for i, block in enumerate(blocks) if block.factory == factory]
            means, halves = self._kind(factory).predict([blocks[i] for i in rows], level)
            low[rows], high[rows] = np.exp(means - halves), np.exp(means + halves)
        return low, high

    def _kind(self, factory: str) -> _Kind:
        if factory not in self._kinds:
            own = [block for block in self._latencies_ms if block.factory == factory]
            if len(own) >= _ENOUGH:
                self._kinds[factory] = _Kind.of(own, self._of(own), shared=False)
            else:
                if self._shared is None:
                    every = list(self._latencies_ms)
                    self._shared = _Kind.of(every, self._of(every), shared=True)
                shared = self._shared
                widened = 1.0 if own else _FOREIGN
                self._kinds[factory] = _Kind(shared.regression, shared.arguments, shared.scores, widened)
        return self._kinds[factory]

    def _of(self, blocks: Sequence[Block]) -> FloatArray:
        return np.array([self._latencies_ms[block] for block in blocks], dtype=np.float64)


def for_table(table: LatencyTable, *, miss: Miss = "estimate") -> CorrectedSum:
    """The corrected sum over `table`, not yet fitted, with blocks that it lacks estimated unless `miss` is "error"."""
    latencies_ms, device = table.latencies_ms(), table.device.name
    estimator = KernelRegressors(latencies_ms, device=device) if miss == "estimate" and len(latencies_ms) > 1 else None
    return CorrectedSum(latencies_ms, device=device, failures=table.failures(), estimator=estimator)


def _inputs(blocks: Sequence[Block], arguments: ArgumentColumns | None) -> list[FloatArray]:
    costs = np.log1p(cost_columns(blocks))
    described = costs if arguments is None else arguments(blocks)
    return [costs, described, np.hstack([costs, described])]
