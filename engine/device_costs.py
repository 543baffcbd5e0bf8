"""What networks cost on one device, from its table: latency with its tail, and energy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import cast

import numpy as np

from hwnas.devices import Measurement
from hwnas.engine import architecture as arch
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.architecture import FloatArray, SearchSpace
from hwnas.engine.objective import fewest_runs
from hwnas.engine.objectives import Predicted
from hwnas.engine.run import RunError
from hwnas.latency import AdditivePredictor, Block, LatencyTable, NetworkRow, predictor_for
from hwnas.latency.predictors import Miss
from hwnas.latency.predictors.corrected import CorrectedSum
from hwnas.latency.rows import NetworkRole

# A spread of fewer factors is luck.
_TAIL_NETWORKS = 3


@dataclass(frozen=True)
class Latency:
    """What a population takes on one device, with its uncertainty: latency in ms, and energy where the table has it."""

    space: SearchSpace
    predictor: AdditivePredictor
    failures: dict[Block, str]
    modelled: bool = False  # a formula answered, no device was measured
    device: str = "the device"
    fitted: tuple[tuple[NetworkRow, Measurement], ...] = ()  # whole networks that the predictor was fitted on
    energies_mj: Mapping[Block, float] = field(default_factory=dict)

    @classmethod
    def of(cls, space: SearchSpace, table: LatencyTable, *, predictor: str, estimate: bool = False) -> Latency:
        """The predictor over the table, fitted on its "fit" networks; `estimate` fills gaps, and widens intervals."""
        miss: Miss | None = "estimate" if estimate else None
        fitted = cast(AdditivePredictor, predictor_for(table, name=predictor, miss=miss))
        if not hasattr(fitted, "block_ms"):
            raise RunError(
                f"table.predictor = {predictor!r} does not tell what a block adds, and a search has to know: choose "
                "corrected, kernels or residual"
            )
        rows = table.block_rows()
        energies = {
            row.block: row.evidence.result.energy_mj
            for row in rows
            if isinstance(row.evidence.result, Measurement) and row.evidence.result.energy_mj is not None
        }
        failures = {row.block: row.evidence.result for row in rows if isinstance(row.evidence.result, str)}
        fitted.fit(table.measured("fit"))
        networks = tuple(measured_networks(table, "fit"))
        return cls(space, fitted, failures, table.modelled, table.device.name, networks, energies)

    def additive(self) -> AdditiveCost:
        """The sum that the predictor corrects; infinite where a block failed. Raises LookupError for a gap."""
        return self._sums

    def predicted(self, percentile: int | None = None) -> Predicted:
        """Latency in ms: of a typical run, or at a percentile of the runs at one speed of the device.

        Raises LookupError for a block without a latency, or where no network was timed often enough for a percentile.
        """
        tail = Tail() if percentile is None or self.modelled else self.tail(percentile)
        predictor = self.predictor

        def std(sums: FloatArray, widths: FloatArray) -> FloatArray:
            # relative errors of a product add up by their squares
            return np.hypot(tail.factor * predictor.std_ms(sums, widths), tail.std * predictor.correct(sums))

        degrees = min(_degrees(len(self.fitted)), tail.degrees)
        return Predicted(self._sums, lambda sums: tail.factor * predictor.correct(sums), std, self._widths, degrees)

    def tail(self, percentile: int) -> Tail:
        """How far a percentile of a network's runs lies beyond its median. Raises LookupError.

        Spells of the device's clock that all networks of a round share are divided out, as they are for the median:
        the tail is that of one speed of the device.
        """
        fewest = fewest_runs(percentile)
        held = [measured for _, measured in self.fitted if len(measured.runs_ms) >= fewest]
        if len(held) < _TAIL_NETWORKS:
            most = max((len(measured.runs_ms) for _, measured in self.fitted), default=0)
            raise LookupError(
                f"{len(held)} whole networks of {self.device!r} have the {fewest} runs that a p{percentile} is read "
                f"from (the most is {most}), and it takes {_TAIL_NETWORKS}: build a new table with [device] "
                "percentiles = true and `hwnas table build --table PATH`"
            )
        ratios = np.array([steady_percentile_ms(measured, percentile) / measured.latency_ms for measured in held])
        n = len(ratios)
        # of the next network, so the mean's own error comes on top
        return Tail(float(ratios.mean()), float(ratios.std(ddof=1) * np.sqrt(1 + 1 / n)), _degrees(n))

    def energy(self) -> Predicted:
        """Energy of a run in mJ, corrected by whole networks as latency is. Raises LookupError for a table without."""
        missing = [block for block in arch.every_block(self.space) if block not in self.energies_mj]
        missing = [block for block in missing if block not in self.failures]
        if missing:
            raise LookupError(
                f"{len(missing)} blocks have no energy in the table of {self.device!r}, first {missing[0]}: it has no "
                "counter that can be read (RAPL, NVML) and is no model: leave energy_mj out for this device"
            )
        networks = [(row.blocks, m.energy_mj) for row, m in self.fitted if m.energy_mj is not None]
        summed = CorrectedSum(self.energies_mj, device=self.device, failures=self.failures)
        summed.fit(networks)
        additive = self._sum(summed.block_ms)
        return Predicted(additive, summed.correct, summed.std_ms, degrees=_degrees(len(networks)))

    @cached_property
    def _sums(self) -> AdditiveCost:
        return self._sum(self.predictor.block_ms)

    @cached_property
    def _widths(self) -> AdditiveCost:
        return AdditiveCost.of(
            self.space, lambda block: 0.0 if block in self.failures else self.predictor.block_std_ms(block)
        )

    def _sum(self, of_block: Callable[[Block], float]) -> AdditiveCost:
        return AdditiveCost.of(self.space, lambda block: np.inf if block in self.failures else of_block(block))


@dataclass(frozen=True, slots=True)
class Tail:
    """A percentile of a network's runs over their median, from networks measured whole."""

    factor: float = 1.0
    std: float = 0.0  # of the factor of another network
    degrees: float = inf


def steady_percentile_ms(measurement: Measurement, percentile: float) -> float:
    """A percentile of the runs with the drift that a batch shares divided out."""
    return float(np.percentile(measurement.steady_ms, percentile))


def _degrees(networks: int) -> float:
    """Of freedom in a spread of so many; without a spread the deviation is an assumption, and a wide one."""
    return networks - 1 if networks > 1 else inf


def measured_networks(table: LatencyTable, role: NetworkRole | None = None) -> list[tuple[NetworkRow, Measurement]]:
    """Whole networks that ran, of one role or of both, with their runs."""
    rows = table.networks(role)
    return [(row, row.evidence.result) for row in rows if isinstance(row.evidence.result, Measurement)]
