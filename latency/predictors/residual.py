"""What whole networks take beyond the corrected sum of their blocks, learned from end-to-end runs.

Blocks that move much or run many operations gain or lose more inside a network than others: what a network is charged
for is added to the sum, with a shrinkage chosen by leaving each measured network out, and only where that helps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.latency.block import Block
from hwnas.latency.predictors import FloatArray, MeasuredNetwork, Miss, Predictions
from hwnas.latency.predictors import corrected as corrected_file
from hwnas.latency.predictors._features import block_costs, network_costs
from hwnas.latency.predictors.corrected import CorrectedSum
from hwnas.latency.table import LatencyTable

# Over costs whose mean is 1: below, five coefficients follow the noise of few networks; above, nothing is left.
_SHRINKAGES = np.logspace(-5, 0, 11)
# Fewer networks than this decide nothing about five more coefficients.
_FEWEST = 8
# The residual must be this much better on networks left out, or the choice itself is luck.
_GAIN = 0.9


@dataclass(frozen=True, slots=True)
class Residual:
    """ms to add to a network's sum of blocks, a unit of each cost; all 0 where none helps."""

    per_cost_ms: tuple[float, ...] = (0.0,) * 5  # of network_costs: MACs, numbers moved, weights, operations, blocks
    relative_std: float | None = None  # on networks left out; None: the corrected sum's own
    corrected_error: float | None = None  # relative rms on networks left out, of the corrected sum
    residual_error: float | None = None  # and with the residual


class ResidualSum:
    """The corrected sum, and beside it what costs explain of the rest; additive, as costs are sums over blocks."""

    def __init__(self, corrected: CorrectedSum) -> None:
        self._corrected = corrected
        self.residual = Residual()

    def fit(self, networks: Sequence[MeasuredNetwork]) -> None:
        """Fit the corrected sum, then the residual. Raises LookupError for a block without a latency."""
        self.residual = Residual()
        if len(networks) >= _FEWEST:
            costs = network_costs([blocks for blocks, _ in networks])
            plain, explained = _left_out(self._corrected, networks, costs)
            per_cost_ms = _coefficients(self._corrected, networks, costs)
            helps = explained < _GAIN * plain
            self.residual = (
                Residual(tuple(map(float, per_cost_ms)), explained, plain, explained)
                if helps
                else Residual(corrected_error=plain, residual_error=explained)
            )
        self._corrected.fit(networks)

    def predict(self, networks: Sequence[Sequence[Block]]) -> Predictions:
        """Latencies of all `networks`. Raises LookupError for missing blocks that nothing estimates."""
        found = self._corrected.predict(networks)
        if not any(self.residual.per_cost_ms):
            return found
        added_ms = network_costs(networks) @ np.array(self.residual.per_cost_ms)
        sums = np.array([sum(map(self.block_ms, blocks)) for blocks in networks], dtype=np.float64)
        stds = np.array([sum(map(self.block_std_ms, blocks)) for blocks in networks], dtype=np.float64)
        return Predictions(found.mean_ms + added_ms, self.std_ms(sums, stds), found.missing)

    def block_ms(self, block: Block) -> float:
        """What `block` adds to the sum that `correct` takes, in ms; the residual's share may be below 0."""
        own = self._corrected.block_ms(block)
        if not any(self.residual.per_cost_ms):
            return own
        added_ms = float(np.dot((*block_costs(block), 1.0), self.residual.per_cost_ms))
        return own + added_ms / self._corrected.correction.slope

    def block_std_ms(self, block: Block) -> float:
        """Deviation of the estimate of `block` in ms; 0 where it was measured."""
        return self._corrected.block_std_ms(block)

    def correct(self, sums: FloatArray) -> FloatArray:
        """Sums of `block_ms`, any shape -> latencies in ms, the same shape."""
        return self._corrected.correct(sums)

    def std_ms(self, sums: FloatArray, stds: FloatArray) -> FloatArray:
        """Sums of `block_ms` and of `block_std_ms` -> deviations in ms, the same shape."""
        if self.residual.relative_std is None:
            return self._corrected.std_ms(sums, stds)
        slope = self._corrected.correction.slope
        return np.hypot(self.residual.relative_std * np.abs(self.correct(sums)), slope * np.asarray(stds))


def for_table(table: LatencyTable, *, miss: Miss = "error") -> ResidualSum:
    """The residual over the corrected sum of what `table` holds now, not yet fitted."""
    return ResidualSum(corrected_file.for_table(table, miss=miss))


def _left_out(corrected: CorrectedSum, networks: Sequence[MeasuredNetwork], costs: FloatArray) -> tuple[float, float]:
    """Relative rms error on each network of all that is fitted on the others: without and with the residual."""
    plain, explained = np.empty(len(networks)), np.empty(len(networks))
    for i, (blocks, latency_ms) in enumerate(networks):
        kept = np.arange(len(networks)) != i
        per_cost_ms = _coefficients(corrected, [*networks[:i], *networks[i + 1 :]], costs[kept])
        predicted_ms = corrected.predict([blocks])[0].mean_ms
        plain[i] = predicted_ms / latency_ms - 1
        explained[i] = (predicted_ms + costs[i] @ per_cost_ms) / latency_ms - 1
    return float(np.sqrt(np.mean(plain**2))), float(np.sqrt(np.mean(explained**2)))


def _coefficients(corrected: CorrectedSum, networks: Sequence[MeasuredNetwork], costs: FloatArray) -> FloatArray:
    """Fit `corrected`, then ms a unit of each cost, (5,): ridge on what is left, relative to the latencies.

    The shrinkage has the least left-out error in closed form (PRESS: Allen, Technometrics 16, 1974).
    """
    corrected.fit(networks)
    measured_ms = np.array([latency_ms for _, latency_ms in networks], dtype=np.float64)
    scale = np.maximum(costs.mean(0), 1e-300) / measured_ms.mean()
    design = costs / scale / measured_ms[:, None]
    wanted = 1 - corrected.predict([blocks for blocks, _ in networks]).mean_ms / measured_ms
    gram, moment = design.T @ design / len(design), design.T @ wanted / len(design)
    trials = []
    for shrinkage in _SHRINKAGES:
        inverse = np.linalg.inv(gram + shrinkage * np.eye(len(gram)))
        solution = inverse @ moment
        leverage = np.einsum("ij,jk,ik->i", design, inverse, design) / len(design)
        errors = (wanted - design @ solution) / np.maximum(1 - leverage, 1e-3)
        trials.append((float(np.mean(errors**2)), solution))
    _, solution = min(trials, key=lambda trial: trial[0])
    found: FloatArray = solution / scale
    return found
