"""What a search can weigh and limit, by name. One file an objective.

A file has `estimate(sources, quantity) -> Estimate` and says by constants what a name of it may hold: ON_DEVICE (it
differs from device to device), PERCENTILES (it has a tail) and LIMITED (a limit on it can be kept without evaluating).
Another package names such a module under the entry-point group "hwnas.engine.objectives".
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from types import ModuleType
from typing import Protocol

import numpy as np
from scipy.stats import t as student

from hwnas.devices.plugins import load_plugin, plugin_names
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.architecture import Architecture, FloatArray, IntArray, SearchSpace
from hwnas.engine.objective import Costs, Objective, Quantity
from hwnas.latency.block import Block


@dataclass(frozen=True, slots=True)
class Predicted:
    """A cost that is predicted from a sum over slots; an infinite sum is a network that cannot run."""

    additive: AdditiveCost
    mean: Callable[[FloatArray], FloatArray]  # sums -> costs, never falling
    std: Callable[[FloatArray, FloatArray], FloatArray]  # sums and sums of widths -> standard errors of the costs
    widths: AdditiveCost | None = None  # what blocks that were only estimated add to the uncertainty
    degrees: float = inf  # of freedom behind the standard errors

    def costs(self, X: IntArray) -> FloatArray:
        """Of each row, (n,)."""
        return self.mean(self.additive(X))

    def deviations(self, X: IntArray) -> FloatArray:
        """Standard error of the cost of each row, (n,)."""
        sums = self.additive(X)
        return self.at(sums, np.zeros(len(X)) if self.widths is None else self.widths(X))[1]

    def at(self, sums: FloatArray, widths: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(costs, standard errors) of networks with these sums, of their shape."""
        runs = np.isfinite(sums)
        known = np.where(runs, sums, 0.0)
        return np.where(runs, self.mean(known), np.inf), np.where(runs, self.std(known, widths), 0.0)


@dataclass(frozen=True, slots=True)
class Estimate:
    """An objective with what a limit on it needs."""

    objective: Objective
    predicted: Predicted | None = None
    additive: AdditiveCost | None = None  # a sum that the cost is never below, where that is no prediction

    @classmethod
    def of_sum(cls, quantity: Quantity, unit: str, additive: AdditiveCost) -> Estimate:
        """A cost that is a sum over slots, known exactly."""
        return cls(Objective(str(quantity), unit, additive, cheap=True), additive=additive)

    @classmethod
    def of_prediction(cls, quantity: Quantity, unit: str, predicted: Predicted) -> Estimate:
        """A predicted cost."""
        objective = Objective(str(quantity), unit, predicted.costs, cheap=True, deviations=predicted.deviations)
        return cls(objective, predicted=predicted)

    @property
    def rises_with(self) -> AdditiveCost | None:
        """The sum that the cost is, or that it rises with; None where there is none."""
        if self.predicted is not None:
            return self.predicted.additive
        costs = self.objective.costs
        return costs if isinstance(costs, AdditiveCost) else None

    def bound_of_sums(self, sums: FloatArray, confidence: float) -> FloatArray:
        """What the cost of networks with these sums (n,) of `rises_with` is not below with that confidence."""
        if self.predicted is None:
            return sums
        # an estimate's width may differ from network to network: without it nothing is called infeasible wrongly
        mean, std = self.predicted.at(sums, np.zeros(len(sums)))
        return mean + self.multiplier(confidence) * std

    def multiplier(self, confidence: float) -> float:
        """Standard errors between the cost and its one-sided upper bound: Student's quantile at `confidence`."""
        if self.objective.deviations is None:
            return 0.0
        return float(student.ppf(confidence, inf if self.predicted is None else self.predicted.degrees))

    def bound(self, confidence: float) -> Costs:
        """What the cost stays below with this confidence; a cost without a standard error is its own bound."""
        costs, deviations, times = self.objective.costs, self.objective.deviations, self.multiplier(confidence)
        if deviations is None or times == 0:
            return costs
        return lambda X: costs(X) + times * deviations(X)

    def least(self, confidence: float) -> tuple[Architecture, float] | None:
        """An architecture with the least sum, and what no bound of the space is below; None where nobody knows."""
        if self.predicted is None:
            return None if self.additive is None else self.additive.minimum()
        cheapest, total = self.predicted.additive.minimum()
        return cheapest, float(self.bound_of_sums(np.array([total]), confidence)[0])


class Sources(Protocol):
    """What objectives are made of."""

    @property
    def space(self) -> SearchSpace:
        """The search space."""
        ...

    @property
    def validation(self) -> int:
        """Images of the validation split."""
        ...

    def errors(self, X: IntArray) -> FloatArray:
        """1 - validation accuracy of each row, (n,)."""
        ...

    def sums(self, cost: Callable[[Block], float]) -> AdditiveCost:
        """The sum of `cost` over the blocks of a network, made once."""
        ...

    def latency(self, device: str, percentile: int | None) -> Predicted:
        """Latency in ms on a device of the run, of a typical run or at a percentile of its runs."""
        ...

    def energy(self, device: str) -> Predicted:
        """Energy of one run in mJ on a device of the run. Raises LookupError where its table has none."""
        ...


def names() -> tuple[str, ...]:
    """Every objective installed, sorted."""
    return plugin_names(sys.modules[__name__])


def find(quantity: Quantity) -> ModuleType:
    """The file of the quantity's objective. Raises LookupError for an unknown one, or for one that has no such part."""
    try:
        module: ModuleType = load_plugin(sys.modules[__name__], quantity.metric)
    except LookupError:
        raise LookupError(f"no objective is called {quantity.metric!r}: choose from {', '.join(names())}") from None
    if quantity.device is not None and not getattr(module, "ON_DEVICE", False):
        raise LookupError(f"{quantity.metric} is the same on every device: write {quantity.metric!r} alone")
    if quantity.percentile is not None and not getattr(module, "PERCENTILES", False):
        raise LookupError(f"{quantity.metric} has no percentiles: leave {f':p{quantity.percentile}'!r} out")
    return module


def estimate(sources: Sources, quantity: Quantity) -> Estimate:
    """What `quantity` names, its device named where it has one. Raises LookupError."""
    found: Estimate = find(quantity).estimate(sources, quantity)
    return found
